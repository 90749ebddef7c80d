"""Digests of Python code: what tells a function of a user from others, and from itself once changed."""

import ast
import inspect
import io
import re
import sys
import sysconfig
import textwrap
import tokenize
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from index.errors import UsageError
from index.io import content_digest

PLAIN = str | int | float | None  # what settings hold
INSTALLED, STDLIB = {"site-packages", "dist-packages"}, Path(sysconfig.get_path("stdlib"))


def digest_module(module: ModuleType, folder: Path) -> str:
    """Identify the code of a module, and of what it uses of other modules below a folder."""
    texts: dict[Path, str] = {}
    waiting = [module]
    while waiting:
        one = waiting.pop()
        path = Path(getattr(one, "__file__", None) or module.__name__).absolute()
        installed = folder not in path.parents or INSTALLED.intersection(path.parts) or STDLIB in path.parents
        if path in texts or (installed and one is not module):
            continue
        texts[path] = _strip_comments(path.read_text(errors="replace")) if path.suffix == ".py" else path.name
        for value in vars(one).values():
            used = value if isinstance(value, ModuleType) else _module_of(value)
            waiting += [used] if used else []
    unread = list(texts)
    while unread:  # what an import names, also within a function, or for a constant
        for path in _find_imports(texts[importing := unread.pop()], importing, folder) - texts.keys():
            texts[path] = _strip_comments(path.read_text(errors="replace"))
            unread.append(path)
    return content_digest("\0".join(texts[path] for path in sorted(texts)).encode())


def _find_imports(text: str, path: Path, folder: Path) -> set[Path]:
    """Find the files below a folder that the code of one of them imports."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):
        return set()
    named = [(folder, alias.name) for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            base = path.parents[min(node.level, len(path.parents)) - 1] if node.level else folder
            named += [(base, ".".join(filter(None, (node.module, alias.name)))) for alias in node.names]
    files = set()
    for base, name in named:
        for place in accumulate(name.split("."), Path.joinpath, initial=base):
            files |= {place.with_name(f"{place.name}.py"), place / "__init__.py"}
    return {file for file in files if file.is_file() and folder in file.parents}


def _module_of(value: Any) -> ModuleType | None:
    name = getattr(value, "__module__", None)
    return sys.modules.get(name) if isinstance(name, str) else None


def digest_function(function: Any, name: str) -> str:
    """Identify a function by its code, and that of what it names beside it; UsageError if it has none."""
    texts: dict[str, str] = {}
    waiting = [function] if inspect.isfunction(function) else []
    try:
        while waiting:
            one = waiting.pop()
            if one.__qualname__ not in texts:
                texts[one.__qualname__] = _strip_comments(textwrap.dedent(inspect.getsource(one)))
                for word, used in _find_named(one, function.__globals__):
                    if held := _describe(used):
                        texts[word] = held
                    elif getattr(used, "__module__", "") == function.__module__ and hasattr(
                        used, "__qualname__"
                    ):
                        waiting.append(used)
    except (OSError, TypeError):
        texts = {}
    if not texts:
        raise UsageError(
            f"Nothing tells {name} from another teacher. Give it a key, a text that changes with its vectors."
        )
    return content_digest("\0".join(texts[name] for name in sorted(texts)).encode())


def _find_named(one: Any, known: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Find what the code of a function or class names: its defaults, what it closes over, globals."""
    if inspect.isfunction(one):
        parameters = inspect.signature(one).parameters.values()
        defaults = {f"{one.__qualname__}({each.name})": each.default for each in parameters}
        yield from ((name, value) for name, value in defaults.items() if value is not inspect.Parameter.empty)
        known = {**known, **inspect.getclosurevars(one).nonlocals}
    for word in set(re.findall(r"\w+", inspect.getsource(one))):
        yield word, known.get(word)


def _describe(value: Any) -> str:
    """Describe a constant, settings, an array, or a module's weights by what they hold; empty for others."""
    settings = isinstance(value, dict) and value and all(isinstance(held, PLAIN) for held in value.values())
    if isinstance(value, str | int | float | tuple) or settings:
        return repr(value)
    if hasattr(value, "state_dict") and not isinstance(value, type):
        return "".join(f"{name}{_describe(held)}" for name, held in value.state_dict().items())
    array = np.empty(0, object)
    if hasattr(value, "__array__") and not isinstance(value, type):
        with suppress(TypeError, ValueError, RuntimeError):
            array = np.asarray(value.detach().cpu().float() if hasattr(value, "detach") else value)
    content = "" if array.dtype.hasobject else content_digest(array.tobytes())
    return content and f"{array.dtype}{array.shape}{content}"


def _strip_comments(text: str) -> str:
    """Leave out of Python code what changes nothing: comments, empty lines and spaces at their ends."""
    lines = text.splitlines()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                lines[row - 1] = lines[row - 1][:column]
    except (tokenize.TokenError, SyntaxError):
        pass
    return "\n".join(line.rstrip() for line in lines if line.strip())
