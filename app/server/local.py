"""The site of an index at `local/`: its search runs in the visitor's browser, and no photo is sent."""

import shutil
from pathlib import Path

from platformdirs import user_cache_path

from app.site.build import SiteOptions, build_site
from app.site.folder import FORMAT, MANIFEST
from index.errors import needs
from index.io import content_digest
from index.progress import say
from index.search import Searcher

with needs("demo"):
    from starlette.staticfiles import StaticFiles


def build_local(searcher: Searcher, title: str = "", cache: Path | None = None) -> StaticFiles:
    """Write the site of an index, or bring it up to date, and make the app that serves it.

    Its pictures are those of the server. `title` is as in `Labels`; cache None takes the user's own.

    Raises:
        UsageError: There is no npm to fetch what the student needs.
        RetrievalError: As `build_site`.
    """
    index = searcher.index
    name = content_digest(f"{index.path.absolute()}\n{title}".encode())
    folder = (cache or user_cache_path("retrieval")) / f"sites-{FORMAT}" / name
    pictures = {"small": "../thumbs/{digest}", "large": "../images/{digest}"}
    options = SiteOptions(index.label, title, pictures=pictures["small"], update=True)
    if not (folder / MANIFEST).is_file():  # what a killed run left
        shutil.rmtree(folder, ignore_errors=True)
    say(f"{build_site(searcher, folder, options, pictures)} It is served at /local/.")
    return StaticFiles(directory=folder, html=True)
