"""Write `path,label` for a photo set with its labels as folders.

python benchmarks/folder_labels.py grocery/train grocery/gallery.csv
"""

import csv
import sys
from pathlib import Path

from index.images.sources import find_images


def write_labels(folder: Path, out: Path) -> int:
    """Label every image below a folder by the folder that it lies in; return how many there are."""
    files = find_images([folder])
    with out.open("w", newline="", encoding="utf-8") as file:
        rows = [(entry.path, entry.path.parent.name) for entry in files]
        csv.writer(file).writerows([("path", "label"), *rows])
    return len(files)


if __name__ == "__main__":
    print(write_labels(Path(sys.argv[1]), Path(sys.argv[2])))
