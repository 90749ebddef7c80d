"""Content digests of many files."""

from collections.abc import Callable, Sequence

from index.errors import ImageError
from index.images.file import ImageFile
from index.io import content_digest
from index.parallel import BATCH, bounded_map
from index.progress import progress


def digest_pool(
    files: Sequence[ImageFile], read: Callable[[ImageFile], tuple[bytes, int]] = lambda file: file.read()
) -> list[str]:
    """Content digest of each file; of one that cannot be read, a digest of its path, and it fails later."""

    def digest(file: ImageFile) -> str:
        try:
            return content_digest(read(file)[0])
        except ImageError:
            return content_digest(file.location.encode())

    digests = []
    with progress(len(files), "read") as bar:
        for found in bounded_map(digest, files, ahead=4 * BATCH):
            digests.append(found)
            bar.update()
    return digests
