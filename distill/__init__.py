"""Distil a compact student from few queries to a teacher. The only room that knows torch."""

from importlib.util import find_spec

from index.errors import needs

with needs("distill"):
    if find_spec("torch") is None:  # which is not loaded before it is needed: a dry run does without
        raise ModuleNotFoundError(name="torch")
