"""What the name of a model does not say: how to talk to an endpoint, how to feed an ONNX file of others."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from index.arguments import read_value
from index.errors import UsageError

T = TypeVar("T", int, float)
Dialect = Literal["infinity", "jina", "multipart"]
Layout = Literal["nchw", "nhwc"]
Resize = Literal["squash", "crop", "letterbox"]
Channels = Literal["rgb", "bgr"]
Pool = Literal["cls", "mean"]
CHOICES = {"dialect": Dialect, "layout": Layout, "resize": Resize, "channels": Channels, "pool": Pool}
# Beyond these sleeping, sockets and memory fail, each in a way of its own.
HIGHEST = {"concurrency": 1000, "timeout": 86_400, "size": 16_384}
SLOWEST = 1e-5  # images a second: about one a day


@dataclass(frozen=True)
class EmbedderOptions:
    """Options of `open_embedder`, also as text: each kind of model reads its own; see `HELP`."""

    model: Annotated[str, "endpoint: name of the model"] = ""
    dialect: Annotated[Dialect, "endpoint: infinity, jina or multipart"] = "infinity"
    batch: Annotated[int, "endpoint, callable: images a call"] = 32
    concurrency: Annotated[int, "endpoint: calls at a time"] = 4
    timeout: Annotated[float, "endpoint: seconds for one answer"] = 60.0
    rate: Annotated[float | None, "endpoint, callable: most images a second"] = None
    probe: Annotated[
        bool, "endpoint, callable: true, or false: ask again about one image first, and compare"
    ] = True
    prompt: Annotated[str, "chat: what makes two photos alike"] = (
        "Order the candidates by how surely they show the same thing as the query, the surest first."
    )
    sheet: Annotated[bool, "chat: true, or false: all photos of a question on one numbered sheet"] = False
    size: Annotated[
        int | tuple[int, int] | None, "ONNX: input side in pixels, or HEIGHTxWIDTH, as in 256x128"
    ] = None
    mean: Annotated[
        tuple[float, float, float] | None,
        "ONNX: mean of red,green,blue between 0 and 1: ImageNet 0.485,0.456,0.406 (unless given), "
        "CLIP 0.481,0.458,0.408, pixels/255 0,0,0",
    ] = None
    std: Annotated[
        tuple[float, float, float] | None,
        "ONNX: deviation of red,green,blue: ImageNet 0.229,0.224,0.225 (unless given), "
        "CLIP 0.269,0.261,0.276, pixels/255 1,1,1",
    ] = None
    channels: Annotated[Channels | None, "ONNX: rgb, or bgr as OpenCV has them"] = None
    layout: Annotated[Layout | None, "ONNX: nchw or nhwc"] = None
    resize: Annotated[Resize | None, "ONNX: squash, crop the middle, or letterbox (grey bars)"] = None
    output: Annotated[str | None, "ONNX: which output is the vector"] = None
    pool: Annotated[Pool | None, "ONNX: of tokens or maps take the cls token, or the mean"] = None
    allow_missing: Annotated[
        bool, "vectors: true, or false: go on without the images that the file lacks"
    ] = False

    def __post_init__(self) -> None:
        for name, hint in READ.items():
            object.__setattr__(self, name, _read(name, getattr(self, name), hint))
        for name, kind in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in get_args(kind):
                raise UsageError(
                    f"--teacher-{name} must be one of {', '.join(get_args(kind))}, not {value!r}."
                )
        object.__setattr__(self, "size", _read_size(self.size))
        for name in ("batch", "concurrency", "timeout", "rate"):
            if (value := getattr(self, name)) is not None:
                _check_range(name, value)
        if self.rate is not None and self.rate < SLOWEST:
            raise UsageError(f"--teacher-rate must be at least {SLOWEST:g}, not {self.rate}.")
        for name in ("mean", "std"):
            object.__setattr__(self, name, _read_colours(name, getattr(self, name)))
        if self.std is not None and min(self.std) <= 0:
            raise UsageError("--teacher-std must be above 0.")


HELP: dict[str, str] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(EmbedderOptions, include_extras=True).items()
}
TEXTS: dict[Any, tuple[Callable[[str], Any], str]] = {  # what reads the text of a number, and what it takes
    bool: (lambda text: {"true": True, "false": False}[text.lower()], "true or false"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    float | None: (float, "a number"),
    str: (lambda text: text.encode().decode(), "text"),  # which is to travel, and to be digested
    str | None: (lambda text: text.encode().decode(), "text"),
}
READ = {name: hint for name, hint in get_type_hints(EmbedderOptions).items() if hint in TEXTS}


def _read(name: str, value: Any, hint: Any) -> Any:
    if not isinstance(value, str):
        return read_value(name, value, hint)
    read, what = TEXTS[hint]
    try:
        return read(value)
    except (ValueError, KeyError):
        raise UsageError(f"--teacher-{name} takes {what}, not {value!r}.") from None


def _check_range(name: str, value: float) -> None:
    if not value > 0:
        raise UsageError(f"--teacher-{name} must be above 0, not {value}.")
    if value > HIGHEST.get(name, value):
        raise UsageError(f"--teacher-{name} must be at most {HIGHEST[name]}, not {value}.")


def _read_numbers(value: Any, separator: str, number: Callable[[Any], T]) -> tuple[T, ...]:
    """Read numbers as such, as text, or as the list that JSON makes of them; empty if that cannot be."""
    try:
        return tuple(map(number, value.split(separator) if isinstance(value, str) else value))
    except (ValueError, TypeError, OverflowError):
        return ()


def _read_size(size: Any) -> int | tuple[int, int] | None:
    """Read a side, or height and width."""
    if size is None:
        return None
    sides = _read_numbers([size] if isinstance(size, int) else size, "x", int)
    if len(sides) not in (1, 2):
        raise UsageError(f"--teacher-size takes pixels, as in 224 or 256x128, not {size!r}.")
    for side in sides:
        _check_range("size", side)
    return sides[0] if len(set(sides)) == 1 else (sides[0], sides[1])


def _read_colours(name: str, value: Any) -> tuple[float, ...] | None:
    """Read a number for each of red, green and blue."""
    if value is None or value == "":
        return None
    numbers = _read_numbers(value, ",", float)
    if len(numbers) != 3:
        raise UsageError(f"--teacher-{name} takes three numbers, as in 0.5,0.5,0.5, not {value!r}.")
    text = ",".join(f"{number:g}" for number in numbers)
    if not all(map(math.isfinite, numbers)):
        raise UsageError(f"--teacher-{name} takes finite numbers, not {text}.")
    if max(numbers) > 1 or min(numbers) < 0:
        raise UsageError(f"--teacher-{name} is of colours between 0 and 1, not {text}. Divide it by 255.")
    return numbers
