"""What a search from Python gives: hits, which a notebook shows as pictures."""

from base64 import b64encode
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from index.errors import RetrievalError

THUMBNAIL = 160  # pixels of the longer side


@dataclass(frozen=True)
class Hit:
    """One image that a search found.

    Attributes:
        rank: From 1.
        id: Its place in the index.
        score: Cosine similarity; 1 / rank where a ranker ordered the hits.
        path: Where it is.
        name: Its path below the folder that was indexed.
        metadata: Its columns.
    """

    rank: int
    id: int
    score: float
    path: str
    name: str
    metadata: dict[str, str]


class Hits(list[Hit]):
    """Hits, best first. A notebook shows their pictures."""

    def to_list(self) -> list[dict[str, Any]]:
        """Return them as dictionaries, for JSON or a data frame."""
        return [asdict(hit) for hit in self]

    def _repr_html_(self) -> str:
        cells = (
            f'<figure style="margin:4px"><img src="{_thumbnail(hit)}" alt="">'
            f"<figcaption>{hit.rank}. {escape(hit.name)} {hit.score:.3f}</figcaption></figure>"
            for hit in self
        )
        return f'<div style="display:flex;flex-wrap:wrap">{"".join(cells)}</div>'


def _thumbnail(hit: Hit) -> str:
    from index.images.decode import encode, read_photo
    from index.images.sources import image_at

    try:
        picture = read_photo(image_at(hit.path, hit.name), THUMBNAIL).image
    except RetrievalError:
        return ""
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return f"data:image/jpeg;base64,{b64encode(encode(picture, 'JPEG')).decode()}"
