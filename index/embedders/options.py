"""What the name of a model does not say: how to talk to an endpoint, how to feed a foreign ONNX file."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from index.errors import UsageError

Dialect = Literal["infinity", "jina", "multipart"]
Layout = Literal["nchw", "nhwc"]
Resize = Literal["squash", "crop"]
# Beyond these sleeping, sockets and memory fail, each in a way of its own.
HIGHEST = {"concurrency": 1000, "timeout": 86_400, "size": 16_384}
SLOWEST = 1e-5  # images a second: about one a day


@dataclass(frozen=True)
class EmbedderOptions:
    """Options of `open_embedder`; each kind of model reads its own and leaves the rest.

    Attributes:
        model: Of an endpoint: the model's name.
        dialect: Of an endpoint: how images travel, see `index.embedders.http_formats`.
        batch: Of an endpoint: images a call.
        concurrency: Of an endpoint: calls at a time.
        timeout: Of an endpoint: seconds for one answer.
        rate: Of an endpoint: images a second at most; None sets no limit.
        size: Of an ONNX file: input side in pixels; None takes it from the file.
        mean: Of an ONNX file: subtracted from red, green and blue between 0 and 1.
        std: Of an ONNX file: divided by afterwards.
        layout: Of an ONNX file: order of its input's axes; None takes it from the file.
        resize: Of an ONNX file: `squash` each axis to the side on its own, or `crop` the middle square.
        output: Of an ONNX file: which output is the vector; None takes the only one that can be.
        allow_missing: Of a file of vectors: go on without the images that it lacks.
    """

    model: str = ""
    dialect: Dialect = "infinity"
    batch: int = 32
    concurrency: int = 4
    timeout: float = 60.0
    rate: float | None = None
    size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    layout: Layout | None = None
    resize: Resize | None = None
    output: str | None = None
    allow_missing: bool = False

    def __post_init__(self) -> None:
        for name, kind in (("dialect", Dialect), ("layout", Layout), ("resize", Resize)):
            value = getattr(self, name)
            if value is not None and value not in get_args(kind):
                raise UsageError(
                    f"--teacher-{name} must be one of {', '.join(get_args(kind))}, not {value!r}."
                )
        self._check_ranges()
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is None:
                continue
            if len(value) != 3:
                raise UsageError(f"--teacher-{name} takes three numbers, as in 0.5,0.5,0.5.")
            if not all(map(math.isfinite, value)):
                raise UsageError(f"--teacher-{name} takes finite numbers, not {','.join(map(str, value))}.")
            object.__setattr__(self, name, tuple(map(float, value)))  # JSON knows only lists
        if self.std is not None and min(self.std) <= 0:
            raise UsageError("--teacher-std must be above 0.")

    def _check_ranges(self) -> None:
        for name in ("batch", "concurrency", "timeout", "rate", "size"):
            value = getattr(self, name)
            if value is None:
                continue
            if not value > 0:
                raise UsageError(f"--teacher-{name} must be above 0, not {value}.")
            if value > HIGHEST.get(name, value):
                raise UsageError(f"--teacher-{name} must be at most {HIGHEST[name]}, not {value}.")
        if self.rate is not None and self.rate < SLOWEST:
            raise UsageError(f"--teacher-rate must be at least {SLOWEST:g}, not {self.rate}.")
