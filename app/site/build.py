"""Write an index as a site: a static folder that searches in the visitor's browser."""

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.site.folder import SiteFolder
from app.site.gallery import LEVELS, TEACHER_DEPTH, divide, rank_by_teacher, write_gallery, write_pictures
from app.site.lists import LEVELS as LISTED_LEVELS
from app.site.lists import Lists, is_large, read_centres, write_lists
from app.site.runtime import find_runtime
from app.site.scripts import bundle, read_styles
from app.site.student import needs_runtime, shorten
from index.embedders.onnx import OnnxEmbedder
from index.errors import UsageError
from index.html import load
from index.progress import count
from index.search import Searcher, open_searcher
from index.stores.filters import Filter
from index.stores.metadata.columns import SEPARATOR

HERE = Path(__file__).parent
# The module is imported by other sites, and keeps its name.
KEPT = ("retrieval-search.js", "retrieval-search.d.ts", "sw.js")
# For the hosts that read such a file.
HEADERS = "/data/*\n  Cache-Control: public, max-age=31536000, immutable\n"
LOOK = "Look at it: python -m http.server -d"


@dataclass(frozen=True)
class SiteOptions:
    """What a site has."""

    title: str = ""  # what it is called; empty takes the name of the index
    title_column: str = ""  # column of the metadata that names photos; empty takes the file name
    link_column: str = ""  # column with the address that a photo leads to, if any
    # Address of pictures that lie elsewhere; `{name}`, `{digest}` and `{COLUMN}` are filled in
    pictures: str = ""
    large: bool = True  # whether there are pictures for the large view, too
    # Folder with a runtime of the user's own, for students that cannot do without; None has npm fetch it
    runtime: Path | None = None
    update: bool = False  # whether a site that is there is brought up to date

    def over(self, manifest: dict[str, Any]) -> "SiteOptions":
        """Take what is not given from the manifest of the site as it was."""
        known = manifest["names"]
        return replace(
            self,
            title=self.title or manifest["title"],
            title_column=self.title_column or known["title"],
            link_column=self.link_column or known["link"],
            pictures=self.pictures or known["pictures"],
            large=self.large and manifest.get("large", True),
        )


def build_site_by_name(index: Path, out: Path, options: SiteOptions) -> str:
    """Write the site of an index folder and say what it has.

    Raises:
        UsageError: No index there, no such column, or `out` is something else.
        RetrievalError: The runtime cannot be fetched, or the disk is full.
    """
    return (
        f"{build_site(open_searcher(index, with_teacher=False), out, options)} {LOOK} {shlex.quote(str(out))}"
    )


def build_site(
    searcher: Searcher, out: Path, options: SiteOptions, pictures: dict[str, str] | None = None
) -> str:
    """Write the site of an open index, as `build_site_by_name`; `pictures` has one address for each size."""
    index, student = searcher.index, searcher.models["student"]
    assert isinstance(student, OnnxEmbedder)
    folder = SiteFolder(out, options.update)
    options = options.over(folder.manifest) if folder.manifest else options
    _check(options, searcher)
    items, made = list(index.items), index.manifest.spaces["student"]
    divided, large = divide([item.digest for item in items]), is_large(index)
    runtime, own_runtime = None, bool(options.runtime) or folder.manifest.get("own_runtime", False)
    if own_runtime and not options.runtime:  # that of the site as it was
        kept = folder.manifest["files"]
        runtime = (out / kept["module"]).read_bytes(), folder.read(kept["wasm"])
    elif own_runtime or needs_runtime(index.model_file):
        runtime = find_runtime(options.runtime)
    if options.pictures:
        pictures = pictures or {"small": options.pictures, "large": options.pictures}
    else:
        pictures = write_pictures(folder, [items[i] for part in divided for i in part], options.large)
    files = {"student": folder.pack(shorten(index.model_file))}
    if runtime:
        files |= {"module": folder.put(runtime[0], ".js"), "wasm": folder.pack(runtime[1])}
    shards, lists = list[dict[str, Any]](), dict[str, Any]()
    if large:
        lists = write_lists(folder, index, items, Lists.of(index, read_centres(folder, made)))
    else:
        shards = write_gallery(folder, index, items, divided)
        if (ranked := rank_by_teacher(searcher, divided)) is not None:
            files["teacher"] = folder.pack(ranked)
    title = options.title or index.label
    scripts = _write_page(folder, title, options)
    parts = [name for shard in shards for name in (shard["rows"], shard["facts"])]
    parts += [lists[name] for name in ("centres", "table") if lists]
    first = sum((out / name).stat().st_size for name in (files["student"], *parts, *scripts.values()))
    manifest = {
        "title": title,
        "count": len(items),
        "columns": index.columns,
        "separator": SEPARATOR,
        "names": {
            "title": options.title_column,
            "link": options.link_column,
            "pictures": options.pictures,
        },
        "model": student.name,
        "side": student.side,
        "crop": student.crop,
        "reduced": student.reduced,
        "dim": made.dim,
        "bits": made.bits,
        "rescore": made.rescore,
        "levels": LISTED_LEVELS if lists else LEVELS,
        "teacher_depth": TEACHER_DEPTH,
        "pictures": pictures,
        "large": options.large,
        "own_runtime": own_runtime,
        "files": files | {"worker": scripts["worker.js"]},
        "scripts": list(scripts.values()),
        "shards": shards,
        "lists": lists or None,
    }
    gone = folder.finish(manifest)
    return (
        f"{out}: {count(len(items), 'photo')}, {first / 1e6:.1f} MB for a first visit; "
        f"{folder.written / 1e6:.1f} MB written, {count(gone, 'file')} removed."
    )


def _check(options: SiteOptions, searcher: Searcher) -> None:
    """Raise UsageError for what does not fit, before any work."""
    columns = searcher.index.columns
    filled = re.findall(r"\{([^{}]*)\}", options.pictures)
    if options.pictures and not filled:
        raise UsageError(
            f"--no-thumbnails takes an address with {{name}}, {{digest}} or a column, not {options.pictures}."
        )
    try:
        scheme = urlsplit(options.pictures).scheme
    except ValueError:  # brackets that hold no address
        scheme = "none"
    if scheme not in ("", "http", "https"):
        raise UsageError(
            f"--no-thumbnails takes an http(s) address or a relative one, not {options.pictures}."
        )
    wanted = [name for name in filled if name not in ("name", "digest")]
    named = filter(None, (*wanted, options.title_column, options.link_column))
    Filter(columns=dict.fromkeys(named, "")).require_columns(columns)


def _write_page(folder: SiteFolder, title: str, options: SiteOptions) -> dict[str, str]:
    """Write scripts, styles and the page that names them; return the names of those that a visit loads."""
    names = {f"{script}.js": folder.put(bundle(script).encode(), ".js") for script in ("worker", "page")}
    names["page.css"] = folder.put(read_styles().encode(), ".css")
    for kept in KEPT:
        folder.write(kept, (HERE / kept).read_bytes())
    folder.write("icon.svg", (HERE.parent / "page" / "icon.svg").read_bytes())
    folder.write("_headers", HEADERS.encode())
    scheme, host, *_ = urlsplit(options.pictures)
    if "{" in host:  # a column names the host; without a port none but the usual one is allowed
        host = "*:*" if ":" in host else "*"
    pictures_from = f" {scheme and scheme + '://'}{host}" if host else ""
    page = load("app/site/site.html").page(title, names, pictures_from)
    folder.write("index.html", str(page).encode())
    return names
