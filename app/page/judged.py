"""Under which name an index keeps what people judge of it."""

from index.io import content_digest
from index.stores.base import Store


def judged_as(index: Store) -> str:
    """Name an index by its place and models, for what people judge of it: made again, it keeps its name."""
    spaces = index.manifest.spaces
    models = [spaces[name].key for name in ("student", "teacher") if name in spaces]
    return content_digest("\n".join([str(index.path.resolve()), *models]).encode())
