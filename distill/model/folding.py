"""Fold batch normalisation into the convolutions before it."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(module: nn.Module, example: Tensor) -> int:
    """Replace each convolution and the normalisation that follows it by one convolution, in place.

    A student that keeps ImageNet's statistics normalises by constants. Folded in, they cost no time, and the
    weights that training moves are the ones that act.

    With the example the pairs are found: what a normalisation is given is what a convolution, and nothing
    else, put out. Returns how many pairs were folded.
    """
    made: dict[int, nn.Conv2d] = {}
    kept: list[Tensor] = []  # alive, so that no two of them share an address
    pairs: dict[_BatchNorm, nn.Conv2d] = {}

    def note(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(part, nn.Conv2d):
            made[id(output)] = part
        elif isinstance(part, _BatchNorm) and id(inputs[0]) in made:
            pairs[part] = made[id(inputs[0])]
        kept.append(output)

    hooks = [part.register_forward_hook(note) for part in module.modules()]
    with torch.no_grad():
        before = module(example)
    for hook in hooks:
        hook.remove()
    parents = {part: (parent, name) for parent in module.modules() for name, part in parent.named_children()}
    undo: list[tuple[nn.Module, str, nn.Module]] = []
    for norm, conv in pairs.items():
        # timm's normalisations also hold the activation.
        rest = nn.Sequential(*(part for part in norm.children() if not isinstance(part, nn.Identity)))
        folded: dict[nn.Module, nn.Module] = {
            conv: fuse_conv_bn_eval(conv, norm),
            norm: rest or nn.Identity(),
        }
        for old, new in folded.items():
            parent, name = parents[old]
            undo.append((parent, name, old))
            setattr(parent, name, new)
    with torch.no_grad():
        same = torch.allclose(module(example), before, rtol=1e-3, atol=1e-3 * float(before.abs().max()))
    if not same:  # an output that is used twice, a normalisation of another kind
        for parent, name, old in reversed(undo):
            setattr(parent, name, old)
        return 0
    for parameter in module.parameters():
        parameter.requires_grad = True
    return len(pairs)
