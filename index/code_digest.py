"""Digests of Python code: what tells a function of a user from others, and from itself once changed."""

import ast
import inspect
import io
import re
import sys
import sysconfig
import textwrap
import tokenize
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from functools import partial
from itertools import accumulate
from pathlib import Path, PurePath
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from index.errors import UsageError
from index.io import content_digest

PLAIN = str | bytes | int | float | complex | None | PurePath | Enum  # what settings hold
INSTALLED, ROOT = {"site-packages", "dist-packages"}, Path(__file__).absolute().parents[1]
OURS = {ROOT / name for name in ("index", "distill", "app", "retrieval.py")}
NOT_THEIRS = {Path(sysconfig.get_path("stdlib")), *OURS}


def digest_module(module: ModuleType, folder: Path) -> str:
    """Identify the code of a module, and of what it uses of other modules below a folder."""
    texts: dict[Path, str] = {}
    waiting = [module]
    while waiting:
        one = waiting.pop()
        path = Path(getattr(one, "__file__", None) or one.__name__).absolute()
        if path in texts or not (one is module or _is_theirs(one)):
            continue
        texts[path] = _strip_comments(path.read_text(errors="replace")) if path.suffix == ".py" else path.name
        for value in vars(one).values():
            used = value if isinstance(value, ModuleType) else _module_of(value)
            waiting += [used] if used else []
    _add_imports(texts, folder)
    return content_digest("\0".join(texts[path] for path in sorted(texts)).encode())


def _add_imports(texts: dict[Path, str], folder: Path) -> None:
    """Add the files below a folder that the code of some imports, also within a function or a constant."""
    unread = list(texts)
    while unread:
        for path in _find_imports(texts[importing := unread.pop()], importing, folder) - texts.keys():
            texts[path] = _strip_comments(path.read_text(errors="replace"))
            unread.append(path)


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
    """Identify a function by its code, and by what that names beside it; UsageError if it has none."""
    texts: dict[Any, str] = {}
    waiting = [function] if inspect.isfunction(function) else []
    try:
        while waiting:
            if (one := waiting.pop()) in texts:
                continue
            if isinstance(one, ModuleType):
                texts[one] = digest_module(one, Path(str(one.__file__)).absolute().parent)
                continue
            source = inspect.getsource(one.__code__ if inspect.isfunction(one) else one)
            texts[one] = _strip_comments(textwrap.dedent(source))
            path = Path(inspect.getfile(one)).absolute()
            imports = {path: texts[one]}
            _add_imports(imports, path.parent)
            texts[one] += "".join(imports[path] for path in sorted(imports))
            for word, used in _find_named(one, source):
                texts[one] += f"\0{word} {_describe(used)}"
                waiting += _find_code(used)
    except (OSError, TypeError, ValueError, RecursionError):
        texts = {}
    if not texts:
        raise UsageError(
            f"Nothing tells {name} from another teacher. Give it a key, a text that changes with its vectors."
        )
    return content_digest("\0".join(sorted(texts.values())).encode())


def _find_named(one: Any, source: str) -> Iterator[tuple[str, Any]]:
    """Find what the code of a function or class names: its defaults, what it closes over, globals."""
    known = dict(vars(sys.modules[one.__module__]))
    if inspect.isfunction(one):
        parameters = inspect.signature(one, follow_wrapped=False).parameters.values()
        yield from ((each.name, each.default) for each in parameters if each.default is not each.empty)
        known |= {**one.__globals__, **inspect.getclosurevars(one).nonlocals}
    for word in sorted(set(re.findall(r"\w+", source)) & known.keys()):
        yield word, known[word]


def _find_code(value: Any) -> list[Any]:
    """Find the function, class or module that a value is, or the class that it is of, unless installed."""
    code = value.func if isinstance(value, partial) else getattr(value, "__func__", value)
    if not (inspect.isfunction(code) or inspect.isclass(code) or isinstance(code, ModuleType)):
        code = type(code)
    module = code if isinstance(code, ModuleType) else sys.modules.get(code.__module__)
    return [code] if module and _is_theirs(module) else []


def _is_theirs(module: ModuleType) -> bool:
    """Whether a module is of a user, in a file or a notebook: neither installed, nor Python's, nor ours."""
    if (file := getattr(module, "__file__", None)) is None:
        return module.__name__ == "__main__"
    path = Path(file).absolute()
    return not (INSTALLED.intersection(path.parts) or NOT_THEIRS.intersection([path, *path.parents]))


def _describe(value: Any) -> str:
    """Describe constants, settings, arrays, a module's weights by what they hold; empty for others."""
    if isinstance(value, type | ModuleType):
        return ""
    if isinstance(value, partial):
        value = [value.args, *value.keywords.items()]
    elif isinstance(value, set | frozenset):
        value = sorted(value, key=repr)
    elif isinstance(value, dict):  # settings; what holds more may be a cache
        value = list(value.items()) if _is_plain(value) else None
    elif isinstance(value, SimpleNamespace) or (
        _find_code(value) and not callable(value) and not isinstance(value, PLAIN)
    ):
        value = [held for held in vars(value).items() if not held[0].startswith("_")]
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"{len(value)}{list(map(_describe, value))}"
    if hasattr(value, "state_dict"):
        return "".join(f"{name}{_describe(held)}" for name, held in value.state_dict().items())
    array = np.empty(0, object)
    if hasattr(value, "__array__"):
        with suppress(TypeError, ValueError, RuntimeError):
            array = np.asarray(value.detach().cpu().float() if hasattr(value, "detach") else value)
    return "" if array.dtype.hasobject else f"{array.dtype}{array.shape}{content_digest(array.tobytes())}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, list | tuple) else isinstance(value, PLAIN)


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
