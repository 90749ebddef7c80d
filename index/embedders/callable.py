"""A Python callable as an embedder: whatever turns a list of Pillow images into an array."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index.code_digest import digest_function, digest_module
from index.embedders.base import Calls, Embedder
from index.embedders.options import EmbedderOptions
from index.errors import CallError, RefusedError, UsageError, in_line
from index.images.decode import Photo
from index.io import content_digest
from index.progress import count

SIDE = 512  # pixels; images come with twice that on their longer side at most, which bounds the memory
OURS = ("app", "distill", "index")  # packages that a user may have by the same name


class CallableEmbedder(Embedder):
    """A callable that takes a list of n upright RGB images and answers with `(n, dim)`.

    Its identity is its name and the code of its module, and of what that imports from the same folder. If
    its vectors depend on more, such as a file of weights, give it an attribute `key`, a text that changes
    with them, which then counts in place of the code. Its answers are remembered like those of an endpoint,
    for it may ask one.
    """

    side = SIDE

    def __init__(self, call: str | Callable[..., Any], options: EmbedderOptions) -> None:
        """Take a callable, or import it from `package.module:attribute` or `path/to/module.py:attribute`.

        Modules are searched for in the current folder first, as `python -m` does. Of the options `batch` and
        `rate` count.

        Raises:
            UsageError: There is no such thing, it cannot be called, or nothing tells it from others.
        """
        if isinstance(call, str):
            self.name = self.spec = identity = call
            place, _, attribute = call.rpartition(":")
            if path := Path(place) if place.endswith(".py") else None:
                self.spec, identity = f"{path.absolute()}:{attribute}", f"{path.name}:{attribute}"
            self.call, code = _import(place, path, attribute)
        else:
            self.call, code = call, ""
            named = call if hasattr(call, "__qualname__") else type(call)
            self.name = self.spec = identity = f"{named.__module__}:{named.__qualname__}"
        if not callable(self.call):
            raise UsageError(f"{call} cannot be called. It must take a list of images and return an array.")
        key = getattr(self.call, "key", "")
        told = key if isinstance(key, str) and key else code or digest_function(call, identity)
        self.key = f"python:{identity}#{told}"
        self.options = options
        self.calls = Calls(options.batch, rate=options.rate, paid=True, replaceable=options.probe)

    def prepare(self, photo: Photo) -> Image.Image:
        """Copy the image, smaller if it is very large."""
        image = photo.image.copy()
        image.thumbnail((2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC)
        return image

    def embed(self, batch: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Call it with n images, for `(n, dim)` float32 as answered: of any length, and perhaps not finite.

        Raises:
            RefusedError: As `ask`.
            CallError: What it returned is no array of n rows.
        """
        answer = self.ask(list(batch))
        try:
            with np.errstate(over="ignore"):  # becomes infinite, and is refused as that
                rows = _to_array(answer).astype(np.float32)
        except (ValueError, TypeError, RuntimeError) as error:
            raise CallError(
                f"{self.name} returned {type(answer).__name__}, no array of numbers: {in_line(error)}. "
                "Return a NumPy array or a tensor of n rows.",
                charged=True,
            ) from error
        if rows.ndim != 2 or len(rows) != len(batch):
            raise CallError(
                f"{self.name} returned {rows.shape} for {count(len(batch), 'image')}.", charged=True
            )
        return rows

    def ask(self, *args: Any) -> Any:
        """Call it; RefusedError if it raises something, which is taken to have cost nothing."""
        try:
            answer = self.call(*args)
            return list(answer) if isinstance(answer, Iterator) else answer  # of a generator nothing has run
        except (Exception, SystemExit) as error:
            raise RefusedError(f"{self.name} raised {in_line(error)}") from error


def _to_array(answer: Any) -> NDArray[Any]:
    """Make an array of an array, of a tensor wherever it is, or of a list of either."""
    if hasattr(answer, "detach"):  # a tensor: NumPy knows neither gradients nor bfloat16
        return answer.detach().float().cpu().numpy()
    if isinstance(answer, list | tuple) and any(hasattr(one, "detach") for one in answer):
        return np.stack([_to_array(one) for one in answer])
    if answer is None:
        raise TypeError("nothing came back")
    return np.asarray(answer)


def _import(place: str, path: Path | None, attribute: str) -> tuple[Any, str]:
    """Import an attribute of a module or of a file, and give the digest of their code with it."""
    if path and not path.is_file():
        raise UsageError(f"{path} does not exist. Give the file of a Python module.")
    folder = path.absolute().parent if path else Path.cwd()
    try:
        with _importing_from(folder):
            module = _import_file(path) if path else importlib.import_module(place)
            return attrgetter(attribute)(module), digest_module(module, folder)
    except (Exception, SystemExit) as error:  # importing runs the module, which may raise anything
        raise UsageError(f"{place}:{attribute} cannot be imported: {in_line(error)}.") from error


def _import_file(path: Path) -> ModuleType:
    name = f"teacher_{content_digest(str(path.absolute()).encode())}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Search a folder first, also for packages that have the name of one of ours."""
    if str(folder) in sys.path:
        sys.path.remove(str(folder))
    sys.path.insert(0, str(folder))
    theirs = [name for name in OURS if (folder / name).is_dir() or (folder / f"{name}.py").is_file()]
    if folder == Path(__file__).parents[2]:
        theirs = []
    ours = _take_modules(theirs)
    for name in theirs:
        if (folder / name).is_dir() and not (folder / name / "__init__.py").is_file():
            # Such a package would be found after ours, wherever both are.
            package = ModuleType(name)
            package.__path__ = [str(folder / name)]
            sys.modules[name] = package
    try:
        yield
    finally:
        _take_modules(theirs)  # what holds on to them goes on using them
        sys.modules.update(ours)


def _take_modules(packages: Sequence[str]) -> dict[str, ModuleType]:
    """Take packages, and what is in them, out of the modules that are imported."""
    names = [name for name in sys.modules if name.partition(".")[0] in packages]
    return {name: sys.modules.pop(name) for name in names}
