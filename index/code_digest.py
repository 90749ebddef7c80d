"""Digests of Python code: what tells a function of a user from others, and from itself once changed."""

import inspect
import io
import re
import sys
import sysconfig
import textwrap
import tokenize
from pathlib import Path
from types import ModuleType
from typing import Any

from index.errors import UsageError
from index.io import content_digest

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
    return content_digest("\0".join(texts[path] for path in sorted(texts)).encode())


def _module_of(value: Any) -> ModuleType | None:
    name = getattr(value, "__module__", None)
    return sys.modules.get(name) if isinstance(name, str) else None


def digest_function(function: Any, name: str) -> str:
    """Identify a function by its code, and by that of the functions and classes beside it that it names.

    Raises:
        UsageError: It is no plain function, or its code cannot be found.
    """
    texts: dict[str, str] = {}
    waiting = [function] if inspect.isfunction(function) else []
    try:
        while waiting:
            one = waiting.pop()
            if one.__qualname__ not in texts:
                texts[one.__qualname__] = _strip_comments(textwrap.dedent(inspect.getsource(one)))
                for word in re.findall(r"\w+", texts[one.__qualname__]):
                    used = function.__globals__.get(word)
                    if isinstance(used, str | int | float | tuple):
                        texts[word] = repr(used)
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
