"""The errors a user can cause, and the guard around optional packages."""

from collections.abc import Iterator
from contextlib import contextmanager


class RetrievalError(Exception):
    """Work that failed. Its message is one line that names the thing and the remedy."""

    exit_code = 1


class UsageError(RetrievalError):
    """A request that cannot be carried out as given."""

    exit_code = 2


class ImageError(RetrievalError):
    """An image that cannot be read. Its message is the reason alone, without the image's name."""


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Wrap the import of an optional package, so that its absence names the extra to install.

    Raises:
        UsageError: The package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        raise UsageError(
            f"{missing.name} is not installed. Install it with: pip install 'retrieval[{extra}]'"
        ) from missing
