"""How well near-duplicates are found: by students' vectors, by their codes, and by a perceptual hash.

    python benchmarks/duplicates.py student/student.onnx gallery.csv --out docs/duplicates.csv

Every `--every`th photo of the gallery is changed in four ways. A changed photo is found if it is within the
radius of its original. The radius is the product's own (`index.duplicates`), for a hash that many bits of 64.
Beside it: the share that is found at the largest radius at which no two photos of the gallery that show
different products, by the labels, are within it. `pip install imagehash` for the hash.
"""

import argparse
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from changes import CHANGES
from numpy.typing import NDArray
from PIL import Image
from tables import write_table

from distill.model.codes import VIEWED, embed_views, fit_codes
from index.duplicates import NEIGHBOURS, least_similarity
from index.embedders.onnx import OnnxEmbedder
from index.evaluation.evaluate import read_labels
from index.images.decode import decode
from index.vectors import CODES, UNIT_FLOATS, VectorType, pack

BITS = (64, 128, 256)
HASH_BITS = 10  # of 64, the usual threshold of imagededup
HASHES = {"pHash": imagehash.phash, "dHash": imagehash.dhash}
COLUMNS = ("way", "radius", *CHANGES, "wrong pairs", *(f"{name}, none wrong" for name in CHANGES))
Rows = NDArray[Any]  # vectors, or codes


def embed(model: OnnxEmbedder, photos: list[bytes]) -> Rows:
    """Embed photos to `(n, dim)` rows."""
    prepared = [model.prepare(decode(photo, "photo", model.side)) for photo in photos]
    return np.concatenate(
        [model.embed(prepared[start : start + 32]) for start in range(0, len(prepared), 32)]
    )


def hashed(photos: list[bytes], make: Callable[[Image.Image], imagehash.ImageHash]) -> Rows:
    """Hash photos to `(n, 8)` codes."""
    bits = [make(Image.open(BytesIO(photo)).convert("RGB")).hash.ravel() for photo in photos]
    return np.packbits(np.array(bits), axis=1, bitorder="little")


def score(
    gallery: Rows, changed: dict[str, Rows], every: int, labels: NDArray[np.str_], least: float | None = None
) -> dict[str, str]:
    """Score a way to compare; `least` is the similarity that counts, None takes the product's own."""
    kind: VectorType = CODES if gallery.dtype == np.uint8 else UNIT_FLOATS
    similar = kind.similarity(gallery, gallery)
    others = similar - 3 * np.eye(len(gallery), dtype=np.float32)
    if least is None:
        least = least_similarity(-np.sort(np.partition(-others, NEIGHBOURS, axis=1)[:, :NEIGHBOURS], axis=1))
    wrong = similar[np.triu(labels[:, None] != labels, 1)]
    found = {name: np.diag(kind.similarity(rows, gallery[::every])) for name, rows in changed.items()}
    return {
        "radius": f"{1 - least:.3f}",
        **{name: f"{100 * (scores >= least).mean():.1f}" for name, scores in found.items()},
        "wrong pairs": str(int((wrong >= least).sum())),
        **{
            f"{name}, none wrong": f"{100 * (scores > wrong.max()).mean():.1f}"
            for name, scores in found.items()
        },
    }


def main() -> None:
    """Score all ways, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("student", type=Path)
    parser.add_argument("gallery", type=Path, help="CSV file with path,label.")
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    entries = read_labels(args.gallery)
    labels = np.array([entry.label for entry in entries])
    photos = [Path(entry.file.location).read_bytes() for entry in entries]
    picked = [Image.open(BytesIO(photo)).convert("RGB") for photo in photos[:: args.every]]
    changed = {name: [change(image) for image in picked] for name, change in CHANGES.items()}
    model = OnnxEmbedder(args.student, "cpu", threads=1)
    vectors, shifted = embed(model, photos), {name: embed(model, each) for name, each in changed.items()}
    rows = [{"way": "student's vectors", **score(vectors, shifted, args.every, labels)}]
    seen = np.random.default_rng(0).permutation(len(photos))
    viewed = [model.prepare(decode(photos[i], "photo", model.side)) for i in seen[:VIEWED]]
    views = embed_views(model, np.array(viewed))
    for bits in BITS:
        mean, axes = fit_codes(vectors[seen], bits, views)
        codes = {name: pack((each - mean) @ axes) for name, each in shifted.items()}
        rows.append(
            {"way": f"{bits} bits", **score(pack((vectors - mean) @ axes), codes, args.every, labels)}
        )
    for way, make in HASHES.items():
        hashes = {name: hashed(each, make) for name, each in changed.items()}
        figures = score(hashed(photos, make), hashes, args.every, labels, 1 - 2 * HASH_BITS / 64)
        rows.append({"way": f"{way}, 64 bits", **figures})
    write_table(args.out, COLUMNS, rows)
    print("\n".join(" | ".join(row.values()) for row in rows))


if __name__ == "__main__":
    main()
