"""Distil a compact student from few queries to a teacher. The only room that knows torch."""

from index.errors import needs

with needs("distill"):
    import torch  # noqa: F401
