"""What the name of a model does not say: how to talk to an endpoint, how to feed an ONNX file of others."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from index.errors import UsageError

Dialect = Literal["infinity", "jina", "multipart"]
Layout = Literal["nchw", "nhwc"]
Resize = Literal["squash", "crop", "letterbox"]
Channels = Literal["rgb", "bgr"]
Pool = Literal["cls", "mean"]
CHOICES = {"dialect": Dialect, "layout": Layout, "resize": Resize, "channels": Channels, "pool": Pool}
# Beyond these sleeping, sockets and memory fail, each in a way of its own.
HIGHEST = {"concurrency": 1000, "timeout": 86_400, "size": 16_384}
SLOWEST = 1e-5  # images a second: about one a day


def _help(text: str, flag: str = "") -> dict[str, str]:
    """Describe an option; name its flag where that is not `--teacher-` and its name."""
    return {"help": text, "flag": flag}


@dataclass(frozen=True)
class EmbedderOptions:
    """Options of `open_embedder`; each kind of model reads its own and leaves the rest.

    What each means stands in its `metadata["help"]`. Numbers may be given as text, as on a command line.
    """

    model: str = field(default="", metadata=_help("Of an endpoint: the model's name."))
    dialect: Dialect = field(
        default="infinity", metadata=_help("Of an endpoint: infinity, jina or multipart.")
    )
    batch: int = field(default=32, metadata=_help("Of an endpoint or a Python callable: images a call."))
    concurrency: int = field(default=4, metadata=_help("Of an endpoint: calls at a time."))
    timeout: float = field(default=60.0, metadata=_help("Of an endpoint: seconds for one answer."))
    rate: float | None = field(
        default=None, metadata=_help("Of an endpoint or a Python callable: images a second at most.")
    )
    probe: bool = field(
        default=True,
        metadata=_help("Of an endpoint: ask again about one image first, if there is budget, and compare."),
    )
    size: int | tuple[int, int] | None = field(
        default=None, metadata=_help("Of an ONNX file: input side in pixels, or HEIGHTxWIDTH, as in 256x128.")
    )
    mean: tuple[float, float, float] | None = field(
        default=None,
        metadata=_help(
            "Of an ONNX file: mean of red,green,blue between 0 and 1. ImageNet 0.485,0.456,0.406; CLIP "
            "0.481,0.458,0.408; pixels/255 0,0,0."
        ),
    )
    std: tuple[float, float, float] | None = field(
        default=None,
        metadata=_help(
            "Of an ONNX file: deviation of red,green,blue. ImageNet 0.229,0.224,0.225; "
            "CLIP 0.269,0.261,0.276; pixels/255 1,1,1."
        ),
    )
    channels: Channels | None = field(default=None, metadata=_help("Of an ONNX file: rgb, or bgr."))
    layout: Layout | None = field(default=None, metadata=_help("Of an ONNX file: nchw or nhwc."))
    resize: Resize | None = field(
        default=None, metadata=_help("Of an ONNX file: squash, crop the middle, or letterbox (grey bars).")
    )
    output: str | None = field(default=None, metadata=_help("Of an ONNX file: which output is the vector."))
    pool: Pool | None = field(
        default=None, metadata=_help("Of an ONNX file with tokens or maps: take the cls token, or the mean.")
    )
    allow_missing: bool = field(
        default=False,
        metadata=_help("Of a file of vectors: go on without the images that it lacks.", "--allow-missing"),
    )

    def __post_init__(self) -> None:
        for name, kind in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in get_args(kind):
                raise UsageError(
                    f"--teacher-{name} must be one of {', '.join(get_args(kind))}, not {value!r}."
                )
        object.__setattr__(self, "size", _read_size(self.size))
        for name in ("batch", "concurrency", "timeout", "rate"):
            _check_range(name, getattr(self, name))
        if self.rate is not None and self.rate < SLOWEST:
            raise UsageError(f"--teacher-rate must be at least {SLOWEST:g}, not {self.rate}.")
        for name in ("mean", "std"):
            object.__setattr__(self, name, _read_colours(name, getattr(self, name)))
        if self.std is not None and min(self.std) <= 0:
            raise UsageError("--teacher-std must be above 0.")


def _check_range(name: str, value: float | None) -> None:
    if value is None:
        return
    if not value > 0:
        raise UsageError(f"--teacher-{name} must be above 0, not {value}.")
    if value > HIGHEST.get(name, value):
        raise UsageError(f"--teacher-{name} must be at most {HIGHEST[name]}, not {value}.")


def _read_size(size: Any) -> int | tuple[int, int] | None:
    """Read a side, or height and width: as numbers, as text, or as the list that JSON makes of them."""
    if size is None:
        return None
    try:
        given = size.split("x") if isinstance(size, str) else [size] if isinstance(size, int) else size
        sides = [int(side) for side in given]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise UsageError(f"--teacher-size takes pixels, as in 224 or 256x128, not {size!r}.")
    for side in sides:
        _check_range("size", side)
    return sides[0] if len(set(sides)) == 1 else (sides[0], sides[1])


def _read_colours(name: str, value: Any) -> tuple[float, ...] | None:
    """Read a number for each of red, green and blue, as `_read_size` does."""
    if value is None or value == "":
        return None
    example = f"--teacher-{name} takes three numbers, as in 0.5,0.5,0.5"
    try:
        numbers = tuple(float(part) for part in (value.split(",") if isinstance(value, str) else value))
    except ValueError:
        raise UsageError(f"{example}, not {value!r}.") from None
    if len(numbers) != 3:
        raise UsageError(f"{example}.")
    text = ",".join(f"{number:g}" for number in numbers)
    if not all(map(math.isfinite, numbers)):
        raise UsageError(f"--teacher-{name} takes finite numbers, not {text}.")
    if max(numbers) > 1 or min(numbers) < 0:
        raise UsageError(f"--teacher-{name} is of colours between 0 and 1, not {text}. Divide it by 255.")
    return numbers
