"""What tells a Python teacher from others must change whenever its vectors can."""

import importlib
import sys
from functools import partial, wraps
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from index.code_digest import digest_function
from index.embedders.registry import open_embedder

ARRAY, SETTINGS, CACHE = np.arange(3), {"mean": 0.5}, {"x": np.arange(3)}


def key_of(folder: Path, **modules: str) -> str:
    """The key of `teacher.py:f` beside other modules."""
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return open_embedder(f"{folder / 'teacher.py'}:f").key


@pytest.mark.parametrize(
    "code",
    [
        "def f(images):\n    import scale_of_test\n    return scale_of_test.S\n",
        "from scale_of_test import S\ndef f(images): return S\n",
        "import other_of_test\ndef f(images): return other_of_test.get()\n",
    ],
    ids=["within the function", "a constant", "by another module"],
)
def test_what_a_file_imports_counts_wherever_it_does(tmp_path, monkeypatch, code):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    other = "def get():\n    from scale_of_test import S\n    return S\n"
    modules = {"teacher": code, "other_of_test": other}
    first = key_of(tmp_path, scale_of_test="S = 1\n", **modules)
    assert key_of(tmp_path, scale_of_test="S = 1  # one\n", **modules) == first
    assert key_of(tmp_path, scale_of_test="S = 2\n", **modules) != first
    (tmp_path / "unrelated.py").write_text("S = 3\n")
    assert key_of(tmp_path, scale_of_test="S = 1\n", **modules) == first
    for name in ("scale_of_test", "other_of_test", "teacher"):
        sys.modules.pop(name, None)


def make(value, default=1):
    def closing(images):
        return value

    def defaulting(images, weight=value):
        return weight

    return closing, defaulting


class Weights:
    """As a module of torch."""

    def __init__(self, value):
        self.value = value

    def state_dict(self):
        return {"weight": np.full(2, self.value)}


class Settings:
    """As a user writes them."""

    def __init__(self, value):
        self.value, self._calls = value, []


def doubled(function):
    @wraps(function)
    def wrapper(images):
        return 2 * function(images)

    return wrapper


def tripled(function):
    @wraps(function)
    def wrapper(images):
        return 3 * function(images)

    return wrapper


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "kind",
    [
        int, str, lambda i: (i, 1), lambda i: {"a": i}, lambda i: np.full(2, i), Weights,
        lambda i: [i], lambda i: {i}, lambda i: {"a": {"b": [i]}}, lambda i: (np.arange(5000) == 2000 * i,),
        lambda i: [Weights(i)], lambda i: SimpleNamespace(size=i), Settings, lambda i: Path(str(i)),
        lambda i: partial(pow, i), lambda i: (doubled, tripled)[i - 1](make),
        lambda i: (doubled, tripled)[i - 1],
    ],
)  # fmt: skip
def test_what_a_function_closes_over_or_has_by_default_counts(kind, which):
    one, same, other = (digest_function(make(kind(i))[which], "f") for i in (1, 1, 2))
    assert one == same != other


def test_arrays_and_settings_beside_a_function_count_and_a_cache_does_not(monkeypatch):
    def f(images):
        return ARRAY, SETTINGS, CACHE

    first = digest_function(f, "f")
    monkeypatch.setitem(globals(), "CACHE", {"x": np.arange(3), "y": np.arange(4)})
    assert digest_function(f, "f") == first
    monkeypatch.setitem(globals(), "ARRAY", np.arange(4))
    second = digest_function(f, "f")
    monkeypatch.setitem(globals(), "SETTINGS", {"mean": 0.6})
    assert len({first, second, digest_function(f, "f")}) == 3
