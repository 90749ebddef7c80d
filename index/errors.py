"""The errors a user can cause, and the guard around optional packages."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class RetrievalError(Exception):
    """Work that failed. Its message is one line that names the thing and the remedy."""

    exit_code = 1


class UsageError(RetrievalError):
    """A request that cannot be carried out as given."""

    exit_code = 2


class NoMatchError(UsageError):
    """A filter that no image passes."""


class ImageError(RetrievalError):
    """An image that cannot be read. Its message is the reason alone, without the image's name."""


class CallError(RetrievalError):
    """A call to a teacher that brought no answer, and will bring none later. It may have been `charged`."""

    def __init__(self, message: str, *, charged: bool = False) -> None:
        super().__init__(message)
        self.charged = charged


class TransientError(CallError):
    """A call that brought no answer, and may bring one if it is made again, after `wait` seconds."""

    def __init__(self, message: str, *, charged: bool = False, wait: float = 0.0) -> None:
        super().__init__(message, charged=charged)
        self.wait = wait


class GarbledError(TransientError):
    """An answer that came, was charged for, and cannot be read."""

    def __init__(self, message: str) -> None:
        super().__init__(message, charged=True)


class UnreachableError(TransientError):
    """A call that found nobody at the other end."""


class RefusedError(CallError):
    """A call that was refused for what it asked: one of its images, perhaps, is at fault."""


class BudgetError(RetrievalError):
    """The budget has no room for what is asked."""


class UnansweredError(RetrievalError):
    """A teacher did not answer for some images of a batch; the reasons are by their places in it."""

    def __init__(self, message: str, reasons: Mapping[int, str]) -> None:
        super().__init__(message)
        self.reasons = reasons


def in_line(error: BaseException, named: bool = True, most: int = 300) -> str:
    """Say in one line what others have raised, `named` by its class; cut after so many characters."""
    said = " ".join(str(error).split())
    return (f"{type(error).__name__}: {said}" if named else said)[:most]


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Wrap the import of an optional package: its absence is a UsageError that names the extra."""
    try:
        yield
    except ModuleNotFoundError as missing:
        raise UsageError(
            f'{missing.name} is not installed. Install it with: pip install -e ".[{extra}]"'
        ) from missing
