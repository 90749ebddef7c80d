"""torch modules to ONNX files that carry everything: uint8 in, unit vectors out, facts in the metadata."""

import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from distill.model.backbone import Backbone, create_backbone
from index.embedders.onnx import FORMAT, OnnxEmbedder
from index.errors import RetrievalError, UsageError
from index.evaluation.metrics import rank
from index.io import atomic_write

DEMO_TEACHER = "demo-teacher"
ROUNDING = 1e-5  # by which a score may differ where the coordinates differ in their last bits
DEMO_SIDE = 348  # a third larger than any part: resizing once more inside the graph loses next to nothing
DEMO_PARTS = (("tf_efficientnet_lite0", 224), ("tf_efficientnet_lite1", 240), ("tf_efficientnet_lite2", 260))


class Unit(nn.Module):
    """A backbone with features scaled to unit length."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """Map `(n, h, w, 3)` uint8 to `(n, dim)` unit rows."""
        return F.normalize(self.backbone(images), dim=1)


class Resize(nn.Module):
    """Pillow's bicubic resize from one square to another, as two matrix products that any runtime has."""

    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        # Resizing the rows of an identity gives the resampling matrix itself.
        identity = Image.fromarray(np.eye(source, dtype=np.float32))
        matrix = np.asarray(identity.resize((source, target), Image.Resampling.BICUBIC))
        self.matrix = nn.Buffer(torch.from_numpy(matrix.copy()))

    def forward(self, images: Tensor) -> Tensor:
        """Map `(n, source, source, 3)` to `(n, target, target, 3)` float32 between 0 and 255."""
        channels = images.permute(0, 3, 1, 2).float()
        resized = self.matrix @ channels @ self.matrix.T
        return resized.clamp(0, 255).permute(0, 2, 3, 1)


class Ensemble(nn.Module):
    """Unit vectors of several networks side by side, each at its own size, scaled to unit length."""

    def __init__(self, parts: Mapping[int, Backbone], side: int) -> None:
        super().__init__()
        self.resize = nn.ModuleList(Resize(side, size) for size in parts)
        self.units = nn.ModuleList(Unit(backbone) for backbone in parts.values())

    def forward(self, images: Tensor) -> Tensor:
        """Map `(n, side, side, 3)` uint8 to `(n, sum of dims)` unit rows."""
        views = [unit(resize(images)) for resize, unit in zip(self.resize, self.units, strict=True)]
        return F.normalize(torch.cat(views, dim=1), dim=1)


def export_model(name: str, out: Path, weights: str = "auto") -> Path:
    """Write a timm model, or the demo's `demo-teacher`, as an ONNX embedder; UsageError if there is none."""
    if name == DEMO_TEACHER:
        parts = {side: create_backbone(part) for part, side in DEMO_PARTS}
        module = Ensemble(parts, DEMO_SIDE)
        facts = {"model": DEMO_TEACHER, "weights": "; ".join(b.origin for b in parts.values())}
        return export_onnx(module, out, DEMO_SIDE, sum(b.dim for b in parts.values()), facts)
    backbone = create_backbone(name, weights)
    facts = {"model": name, "weights": backbone.origin}
    return export_onnx(Unit(backbone), out, backbone.side, backbone.dim, facts)


def export_onnx(
    module: nn.Module,
    out: Path,
    side: int,
    dim: int,
    facts: Mapping[str, str],
    crop: float = 1.0,
    reduced: bool = False,
) -> Path:
    """Write a module as one of our ONNX files, which takes its place once it agrees with the module.

    The module maps `(n, side, side, 3)` uint8 to `(n, dim)` unit rows. Facts become `retrieval.<name>`.
    The crop is the share of each side of an image, about its centre, to be shown to the module, of an
    image that is `reduced` or not as in `index.images.decode.square`.

    Raises:
        UsageError: `out` cannot be written.
        RetrievalError: The file does not agree with the module.
    """
    if out.is_dir():
        raise UsageError(f"{out} is a folder. Give the ONNX file to write.")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent} does not exist. Make it, or write elsewhere.")
    module = module.eval().cpu()
    for part in module.modules():
        if hasattr(part, "inplace"):
            part.inplace = False  # type: ignore[assignment]  # undoing it takes the exporter long
    example = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)  # a batch of 1 would be frozen
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            module,
            (example,),
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _drop_traces(model)
    written = {
        "format": FORMAT,
        "size": str(side),
        "resize": "squash",
        "crop": f"{crop:.6f}",
        "interpolation": "bicubic",
        "dim": str(dim),
        "parameters": str(count_parameters(module)),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": " ".join(f"{package}={version(package)}" for package in ("torch", "timm", "onnx")),
        **({"reduced": "yes"} if reduced else {}),
        **facts,
    }
    with atomic_write(out) as beside:
        save_model(model, beside, {f"retrieval.{name}": value for name, value in written.items()})
        check_parity(module, OnnxEmbedder(beside, "cpu"), side)
    return out


def save_model(model: onnx.ModelProto, path: Path, facts: Mapping[str, str]) -> None:
    """Write a model with such metadata, once it is checked."""
    onnx.helper.set_model_props(model, dict(facts))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _drop_traces(model: onnx.ModelProto) -> None:
    """Take away what torch notes of each part: its stack, which has paths and users of this machine."""
    for part in (model.graph, *model.functions):
        parts = [part, *part.node, *part.value_info]
        if isinstance(part, onnx.GraphProto):
            parts += [*part.input, *part.output, *part.initializer]
        for one in parts:
            one.ClearField("metadata_props")
            one.ClearField("doc_string")


def count_parameters(module: nn.Module) -> int:
    """Count the numbers that a module has learnt."""
    return sum(parameter.numel() for parameter in module.parameters())


def describe_file(embedder: OnnxEmbedder) -> dict[str, Any]:
    """Say what run.json holds of a student's file: its size and its identity."""
    return {"megabytes": round(len(embedder.data) / 1e6, 2), "key": embedder.key}


def check_parity(
    module: nn.Module, embedder: OnnxEmbedder, side: int, images: NDArray[np.uint8] | None = None
) -> float:
    """Compare an ONNX file with the module it came from, at several batch sizes, by value and by ranking.

    The `(n, side, side, 3)` uint8 images are noise if None.

    Returns:
        The largest absolute difference between any two coordinates.

    Raises:
        RetrievalError: A coordinate differs by more than 1e-4, or a ranking differs.
    """
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (32, side, side, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = torch.cat([module(chunk) for chunk in torch.from_numpy(images).split(8)]).numpy()
    batches = [embedder.embed(list(images[:n])) for n in (1, 2, 7, len(images))]
    found = batches[-1]
    worst = max(float(np.abs(batch - expected[: len(batch)]).max()) for batch in batches)
    if not worst < 1e-4:
        raise RetrievalError(f"The ONNX file differs from the network by {worst:.2g}; nothing was written.")
    k = min(10, len(images) - 1)
    # Images that the network itself holds for as near, but for rounding, may change places: to an untrained
    # network all are.
    scores = expected @ expected.T
    furthest = np.take_along_axis(scores, rank(scores, k), axis=1).min(axis=1, keepdims=True)
    agreement = (np.take_along_axis(scores, rank(found @ found.T, k), axis=1) >= furthest - ROUNDING).mean()
    if agreement < 0.99:
        raise RetrievalError(f"The ONNX file ranks differently from the network (overlap {agreement:.2f}).")
    return worst
