"""Where images come from: folders, single files, lists and tar shards, here or at addresses. Nothing else."""

import os
import unicodedata
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from io import BytesIO
from itertools import chain, groupby
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from index.errors import ImageError, UsageError, in_line
from index.images.file import ImageFile, Member, path_to_text, readable, text_to_path
from index.images.left_out import EXTENSIONS, LeftOut
from index.images.listing import Listing, Stretch, expand, file_at, list_addresses, name_in_shard
from index.images.public_address import leads_inward
from index.images.remote import Remote, is_address, lies_below
from index.images.tar import JOINED, SUFFIX, list_members
from index.progress import note

LISTS = (".txt", ".parquet")
WEB = ("http://", "https://")
UTF_16 = (BOM_UTF16_LE, BOM_UTF16_BE)
COLUMN = "path"  # of a Parquet file that is a list
FOLDER = "folder: "  # begins the reason why a folder cannot be looked into
Source = str | Path  # a path, or an address, which is a text


def find_images(sources: Sequence[Source], exclude: Sequence[str] = (), whole: bool = False) -> Listing:
    """List images in a stable order, each path once.

    Args:
        sources: Folders, searched for files with the extension of an image, links followed, but for
            thumbnails, trash and what is hidden, which is counted and said; tar shards (`.tar`), searched in
            the same way; lists of paths, relative to the folder of the list, of images
            and of shards: `.txt` with one on each line, or `.parquet` with a column of them; and image files,
            taken whatever their extension. All but folders may lie at addresses, which lists may name too.
        exclude: Patterns of names to leave out of folders, shards and lists, as for `LeftOut`.
        whole: Whether a folder or shard that cannot be looked into is an error, and not a refused file.

    Returns:
        The files, made one by one as they are asked for.

    Raises:
        UsageError: A source does not exist or is no list, there is no image in any of them, or one is not
            `whole`.
        RetrievalError: A store cannot be asked.
    """
    left = LeftOut(exclude)
    stretches: list[Stretch] = []
    for remote, group in groupby(map(str, sources), is_address):
        if remote:
            stretches += _list_remote(chain.from_iterable(map(expand, group)), left)
        else:
            alone = len(sources) == 1
            stretches += chain.from_iterable(_list_local(source, alone, left) for source in group)
    _require_whole(stretches if whole else ())
    if not (files := Listing(stretches)):
        raise UsageError(
            f"No image in {', '.join(map(str, sources))}. Looked for {' '.join(sorted(EXTENSIONS))}; "
            f"a shard is looked into if it is named itself: shards/*{SUFFIX}."
            + (f" Left out: {left}." if str(left) else "")
        )
    if str(left):
        note(f"left out: {left}")
    return files


def _require_whole(stretches: Iterable[Stretch]) -> None:
    """Raise UsageError for a folder or shard that could not be looked into, or not to its end."""
    for files in stretches:
        for name, reason in files.faults.items():
            # The name of a shard itself is empty; what is joined to its end was never listed.
            if reason.startswith(FOLDER) or (not name and reason != JOINED):
                path, why = files.make(name, 0, 0, reason).location, reason.removeprefix(FOLDER)
                raise UsageError(
                    f"{path} cannot be read: {why}. An update would take its images for gone. Mend it, or "
                    "leave it out."
                )


def source_name(source: Source) -> str:
    """A source as text that means the same anywhere on this machine, and is valid UTF-8."""
    return str(source) if is_address(str(source)) else path_to_text(text_to_path(str(source)).absolute())


def image_at(location: str, name: str, allowed: Sequence[str] = ()) -> ImageFile:
    """Make an `ImageFile` of a location and name in an index; an address is read only below those allowed."""
    if is_address(location):
        remote = Remote.parse(location)
        below = lies_below(remote.address, allowed)
        fault = "" if below else f"{name} lies at an address: `serve --fetch` allows to read it"
        return ImageFile(Path(location), name, True, remote, fault)
    return file_at(text_to_path(location), name, below=True)


def _list_local(source: str, alone: bool, left: LeftOut) -> Iterator[Stretch]:
    root = text_to_path(source).absolute()
    if not source:  # as of a variable of the shell that is not set; the folder at hand is `.`
        raise UsageError("A source is an empty text. Give images, or a folder, list or shard of them.")
    if root.is_dir():
        yield _list_folder(root, alone, left)
    elif not os.path.lexists(root):
        raise UsageError(f"{source} does not exist. Give images, or a folder, list or shard of them.")
    elif root.suffix not in LISTS:
        yield from _list_paths([root.name], root.parent, False, left)
    else:
        for remote, group in groupby(_read_list(ImageFile(root, str(root))), is_address):
            if remote:
                yield from list_addresses(group, "", True, left)
            else:
                yield from _list_paths(group, root.parent, True, left)


def _list_folder(root: Path, alone: bool, left: LeftOut) -> Stretch:
    def file(name: str, _: int, __: int, fault: str) -> ImageFile:
        return ImageFile(root / name, readable(name), True, None, fault)

    files = Stretch(file, root=str(root).rstrip("/"))
    seen, errors = set[str](), list[OSError]()
    for folder, subfolders, names in os.walk(str(root), onerror=errors.append, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back to a folder above would go round for ever
            subfolders.clear()
            continue
        seen.add(real)
        below = "" if folder == str(root) else f"{os.path.relpath(folder, root)}/"
        subfolders[:] = sorted(name for name in subfolders if left.takes_folder(below + name))
        for name in sorted(names):
            # A walk comes to no path twice: what a single one found need not be kept to know that.
            if left.takes(below + name) and (alone or left.is_new(f"{root}/{below}{name}")):
                files.add(below + name)
    for error in errors:
        name = os.path.relpath(error.filename, root)
        if alone or left.is_new(f"{root}/{name}"):
            files.add(name, f"{FOLDER}{error.strerror}")
    return files


def _list_paths(names: Iterable[str], folder: Path, below: bool, left: LeftOut) -> Iterator[Stretch]:
    def file(name: str, *_: object) -> ImageFile:
        return file_at(folder / text_to_path(name), readable(name), below)

    files = Stretch(file)
    for written in names:
        name = _as_here(written, folder)
        path = folder / text_to_path(name)
        if (below and left.excludes(name)) or not left.is_new(str(path)):
            continue
        if path.suffix == SUFFIX:
            yield files
            yield _list_shard(path, readable(name), left)
            files = Stretch(file)
        else:
            files.add(name)
    yield files


def _list_shard(shard: Path, name: str, left: LeftOut) -> Stretch:
    def file(member: str, offset: int, size: int, fault: str) -> ImageFile:
        place = None if fault else Member(shard, offset, size)
        return ImageFile(shard / member, name_in_shard(name, member), True, place, fault)

    files = Stretch(file)
    for found in left.choose(list_members(shard), shard):
        files.add(*found)
    return files


def _as_here(name: str, folder: Path) -> str:
    """A path as it is written here: without `./`, and in other ways to write it if no file is named so."""
    if not name.isascii() or "\\" in name:
        slashes = name.replace("\\", "/")
        forms = (name, *(unicodedata.normalize(form, slashes) for form in ("NFC", "NFD")))
        name = next((form for form in forms if os.path.lexists(folder / text_to_path(form))), slashes)
    return name.removeprefix("./")


def _list_remote(addresses: Iterable[str], left: LeftOut) -> Iterator[Stretch]:
    """List what lies at addresses; those beside each other are asked about together."""
    split = (address.rpartition("/") for address in addresses)
    for (beside, is_list), group in groupby(split, lambda parts: (parts[0], parts[2].endswith(LISTS))):
        names = (name for _, _, name in group)
        if not is_list:
            yield from list_addresses(names, beside, False, left)
            continue
        for name in names:
            named = _read_remote_list(f"{beside}/{name}")
            yield from list_addresses(named, beside, True, left)


def _read_remote_list(address: str) -> list[str]:
    """Read a list at an address: what it names lies beside it, or at another address."""
    # `file:` and what else is no address of ours is refused later: a list from elsewhere names no file here.
    names = _read_list(ImageFile(Path(address), address, member=Remote(address)))
    leads = cache(lambda host: leads_inward(_host(address), host))
    for name in names if address.startswith(WEB) else ():
        if name.startswith(WEB) and (host := _host(name)) and leads(host):
            raise UsageError(f"{address} names {name}, which lies in a private network, as it does not.")
    return names


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:  # which is refused where it is looked up
        return ""


def _read_list(file: ImageFile) -> list[str]:
    """Read a list: a column of Parquet, or lines of whatever bytes; with the mark of UTF-16 they are that."""
    if file.name.endswith(".parquet"):
        return _read_parquet(file)
    try:
        data, _ = file.read()
    except ImageError as reason:
        raise UsageError(f"{file.name} cannot be read: {reason}.") from reason
    try:
        data = data.decode("utf-16").encode() if data.startswith(UTF_16) else data.removeprefix(BOM_UTF8)
    except UnicodeError as error:
        raise UsageError(f"{file.name} is neither UTF-8 nor whole UTF-16: {error}.") from error
    if b"\0" in data[:2]:
        raise UsageError(f"{file.name} is no list in UTF-8, or in UTF-16 with its mark.")
    lines = data.split(b"\n" if b"\n" in data else b"\r")
    return [os.fsdecode(name) for line in lines if (name := line.removesuffix(b"\r"))]


def _is_text(kind: Any) -> bool:
    """Whether a column of this type has texts, however pandas, Polars or DuckDB have stored them."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind in (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary())


def _read_parquet(file: ImageFile) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file.status()
        table: Path | BytesIO = BytesIO(file.read()[0]) if file.member else file.path
        schema = pq.read_schema(table)
        texts = [field.name for field in schema if _is_text(field.type)]
        if COLUMN not in texts and len(texts) != 1:
            there = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise UsageError(
                f"{file.name} needs a column {COLUMN!r} of texts, or a single one of another name. "
                f"It has {there[:200]}."
            )
        column = pq.read_table(table, columns=[COLUMN if COLUMN in texts else texts[0]])[0]
        return [name for name in column.cast(pa.string()).to_pylist() if name]
    except (ImageError, OSError, pa.ArrowException) as error:
        raise UsageError(f"{file.name} cannot be read as a Parquet file: {in_line(error, False)}.") from error
