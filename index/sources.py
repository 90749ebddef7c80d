"""Where images come from: folders, single files, lists of paths and tar shards. Nothing else is read."""

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from index.errors import ImageError, UsageError
from index.image_file import ImageFile, Member, readable, text_to_path
from index.listing import FolderFiles, Listing, NamedFiles, ShardFiles, Stretch, file_at
from index.shards import SUFFIX, list_members

EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .webp .gif .bmp .tif .tiff .avif .jp2 .ppm .pgm".split()
)
COLUMN = "path"  # of a Parquet file that is a list
IsNew = Callable[[str], bool]


def find_images(sources: Sequence[Path]) -> Sequence[ImageFile]:
    """List images in a stable order, each path once.

    Args:
        sources: Folders, searched for files with the extension of an image, links followed; tar shards
            (`.tar`), searched in the same way; lists of paths, relative to the folder of the list, of images
            and of shards: `.txt` with one on each line, or `.parquet` with a column of them; and image files,
            taken whatever their extension.

    Returns:
        The files, made one by one as they are asked for.

    Raises:
        UsageError: A source does not exist or is no list, or there is no image in any of them.
    """
    seen: set[str] = set()

    def is_new(path: str) -> bool:
        return path not in seen and not seen.add(path)  # type: ignore[func-returns-value]

    stretches: list[Stretch] = []
    for source in sources:
        root = Path(source).absolute()
        if root.is_dir():
            stretches.append(_list_folder(root, is_new))
        elif not os.path.lexists(root):
            raise UsageError(f"{source} does not exist. Give images, or a folder, list or shard of them.")
        elif root.suffix in (".txt", ".parquet"):
            read = _read_parquet if root.suffix == ".parquet" else _read_lines
            stretches += _list_named(read(root), root.parent, is_new, below=True)
        else:
            stretches += _list_named([root.name], root.parent, is_new, below=False)
    if not (files := Listing(stretches)):
        raise UsageError(
            f"No image in {', '.join(map(str, sources))}. Looked for {' '.join(sorted(EXTENSIONS))}; "
            f"a shard is looked into if it is named itself: shards/*{SUFFIX}."
        )
    return files


def image_at(location: str, name: str) -> ImageFile:
    """Make the file of an item again from what was stored of it, be it a file or a member of a shard.

    Args:
        location: `ImageFile.location`.
        name: `ImageFile.name`.
    """
    return file_at(text_to_path(location), name, below=True)


def _list_folder(root: Path, is_new: IsNew) -> FolderFiles:
    names = []
    faults = {}
    for name, fault in _walk(str(root)):
        if is_new(f"{root}/{name}"):
            names.append(name)
            if fault:
                faults[name] = fault
    return FolderFiles(root, names, faults)


def _walk(root: str) -> Iterator[tuple[str, str]]:
    """Names below a folder, with the reason why one that is a folder cannot be looked into."""
    faults: list[OSError] = []
    seen = set()
    for folder, subfolders, names in os.walk(root, onerror=faults.append, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back to a folder above would go round for ever
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        for name in sorted(names):
            if _is_image(name):
                yield os.path.relpath(os.path.join(folder, name), root), ""  # noqa: PTH118
    for fault in faults:
        yield os.path.relpath(fault.filename, root), f"folder: {fault.strerror}"


def _list_named(names: Iterable[str], folder: Path, is_new: IsNew, below: bool) -> Iterator[Stretch]:
    files: list[str] = []
    for name in names:
        path = folder / text_to_path(name)
        if not is_new(str(path)):
            continue
        if path.suffix == SUFFIX:
            yield NamedFiles(folder, files, below)
            yield _list_shard(path, readable(name), is_new)
            files = []
        else:
            files.append(name)
    yield NamedFiles(folder, files, below)


def _list_shard(shard: Path, name: str, is_new: IsNew) -> ShardFiles:
    members: list[str] = []
    places = array("q")
    faults = {}
    for member, place in dict(list_members(shard)).items():
        if (_is_image(member) or not member) and is_new(f"{shard}/{member}"):
            members.append(member)
            if isinstance(place, Member):
                places.extend((place.offset, place.size))
            else:
                places.extend((0, 0))
                faults[member] = place
    return ShardFiles(shard, name, members, places, faults)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122


def _read_lines(path: Path) -> list[str]:
    """Read a list with a path on each line, whatever bytes it has."""
    try:
        data, _ = ImageFile(path, path.name).read()
    except ImageError as reason:
        raise UsageError(f"{path} cannot be read: {reason}.") from reason
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [os.fsdecode(name) for line in lines if (name := line.removesuffix(b"\r"))]


def _read_parquet(path: Path) -> list[str]:
    """Read the column of paths of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        ImageFile(path, path.name).status()
        schema = pq.read_schema(path)
        texts = [
            field.name
            for field in schema
            if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        if COLUMN not in texts and len(texts) != 1:
            raise UsageError(f"{path} needs a column {COLUMN!r} of texts, or a single one of another name.")
        column = pq.read_table(path, columns=[COLUMN if COLUMN in texts else texts[0]])[0]
        return [name for name in column.to_pylist() if name]
    except (ImageError, OSError, pa.ArrowException) as error:
        raise UsageError(
            f"{path} cannot be read as a Parquet file: {' '.join(str(error).split())}."
        ) from error
