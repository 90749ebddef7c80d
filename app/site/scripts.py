"""The scripts and styles of a site, each in one file, so that a visit waits for none that another names."""

import re
from pathlib import Path

from index.evaluation import charts

HERE = Path(__file__).parent
PAGE = HERE.parent / "page"
IMPORT = re.compile(r"^import \{(.+)\} from '\./([\w-]+)\.js';$", re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:const|class|function) (\w+))", re.MULTILINE)


def bundle(script: str) -> str:
    """Read a script behind those that it imports, each as a function that returns its exports."""
    modules: dict[str, str] = {}

    def read(name: str) -> str:
        text = _read(name)
        for _, needed in IMPORT.findall(text):
            if needed not in modules:
                inner = read(needed)
                own, exports = EXPORT.sub("", inner), ", ".join(EXPORT.findall(inner))
                modules[needed] = (
                    f"const {_variable(needed)} = (() => {{\n{own}return {{{exports}}};\n}})();\n\n"
                )
        return IMPORT.sub(lambda found: f"const {{{found[1]}}} = {_variable(found[2])};", text)

    own = read(script)
    return "".join(modules.values()) + own


def _variable(name: str) -> str:
    return "$" + name.replace("-", "_")


def _read(name: str) -> str:
    """A script of the site; what draws the box on a photo is the served page's."""
    if name == "crop":
        return (PAGE / "search" / "crop.js").read_text().replace("\nfunction ", "\nexport function ", 1)
    return (HERE / f"{name}.js").read_text()


def read_styles() -> str:
    """The served page's styles, dark where the browser asks for it, and the few of the site's own."""
    styles = charts.COLOURS.read_text() + (PAGE / "page.css").read_text()
    dark = "@media (prefers-color-scheme: dark) {\n:root {\\1}\n}"
    styles = re.sub(r"^\.dark \{(.*?)^\}", dark, styles, flags=re.DOTALL | re.MULTILINE)
    return styles + (HERE / "site.css").read_text()
