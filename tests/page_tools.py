"""What the tests of the page in a browser share: a server to look at, and words for what is done with it."""

import os
import shutil
from pathlib import Path

import pytest
from forked import Forked, command

# The first is the same without windows, which takes two thirds of the time.
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
FLAGS = [
    *("--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking".split()),
    *("--disable-component-update --disable-sync --disable-dev-shm-usage".split()),
    *("--use-fake-device-for-media-stream --use-fake-ui-for-media-stream".split()),
]
COUNT = 30  # images of the gallery
DESKTOP, PHONE = (1440, 900), (360, 740)
LOOKS = [(DESKTOP, "light"), (PHONE, "dark")]
both_looks = pytest.mark.parametrize("look", LOOKS, ids=["desk, light", "phone, dark"])
# Where a second look hardly adds to what is tested, only the slow tests have it.
at_a_desk, on_a_phone = (
    pytest.mark.parametrize(
        "look",
        [pytest.param(look, marks=[] if look == first else pytest.mark.slow) for look in LOOKS],
        ids=["desk, light", "phone, dark"],
    )
    for first in LOOKS
)
needs_chromium = pytest.mark.skipif(
    not CHROMIUM, reason="no Chromium on this machine (set CHROMIUM to its path)"
)


def start_server(index: Path, *options: str, **environment: str) -> tuple[Forked, str]:
    process = Forked(command, "serve", index, "--port", "0", *options, **environment)
    return process, process.stdout.readline().strip()


def open_fresh(profile, site: str, size: tuple[int, int] = DESKTOP, theme: str = "light"):
    """A tab without what the page has kept in this profile, which has its scripts still: they are dear."""
    tab = profile.new_page()
    tab.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    tab.emulate_media(color_scheme=theme)
    kept = {"origin": site, "storageTypes": "cookies,local_storage,indexeddb"}
    profile.new_cdp_session(tab).send("Storage.clearDataForOrigin", kept)
    return tab


def settle(tab) -> None:
    """Wait until the last answer has been shown, in its full colours: lists fade while they are asked for."""
    tab.wait_for_selector(".search:not([data-state=empty]):not([aria-busy])")
    tab.wait_for_function(
        "!document.getAnimations().some(each => each instanceof CSSTransition"
        " && each.playState === 'running')"
    )


def delay_answers(tab, seconds: float) -> None:
    """Let every answer to the page's scripts come later."""
    tab.evaluate(
        "seconds => { const ask = fetch; window.fetch = async (...asked) => {"
        "if (String(asked[0].url || asked[0]).includes('component_server'))"
        "await new Promise(done => setTimeout(done, 1000 * seconds));"
        "return ask(...asked); }; }",
        seconds,
    )


def open_menu(tab) -> None:
    """Show the controls that wait behind a button on a phone."""
    if tab.is_visible(".menu") and not tab.is_visible(".extras"):
        tab.click(".menu")


def open_part(tab) -> None:
    """Show the picture large enough to draw a box on it: a phone does so when asked."""
    if tab.is_visible(".part"):
        tab.click(".part")


def ids(tab, column: str = "first") -> list[int]:
    return tab.eval_on_selector_all(f"#{column} .card", "cards => cards.map(card => Number(card.dataset.id))")


def upload(tab, path: Path) -> None:
    tab.set_input_files(".search .file", path)
    settle(tab)


def focused(tab) -> tuple[str, str]:
    """Column and id of the result that has the focus."""
    return tuple(
        tab.evaluate(
            "(card => [card.closest('.column').dataset.column, card.dataset.id])"
            "(document.activeElement.closest('.card'))"
        )
    )
