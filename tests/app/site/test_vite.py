"""The module in a project that a bundler builds and TypeScript checks."""

import shutil
import subprocess
from pathlib import Path

import pytest
from page_tools import needs_chromium

EXAMPLE = Path(__file__).parents[3] / "examples" / "site-vite"


@pytest.mark.slow
@needs_chromium
def test_the_vite_example_is_built_and_runs(host, tab, built, page_root, tmp_path):
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    project = shutil.copytree(EXAMPLE, tmp_path / "project")
    for name in ("retrieval-search.js", "retrieval-search.d.ts"):
        shutil.copy(built / name, project / "src")
    shutil.copytree(built, project / "public" / "gallery")

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([npm, *arguments], cwd=project, capture_output=True, text=True, check=False)

    fetched = run("install", "--no-audit")
    if fetched.returncode:
        pytest.skip(f"npm cannot fetch Vite: {fetched.stderr[-200:]}")
    done = run("run", "build")
    assert done.returncode == 0, done.stdout + done.stderr
    tab.goto(host(project / "dist").address)
    tab.set_input_files("input", page_root / "query.png")
    tab.wait_for_selector("#hits img")
    assert tab.inner_text("#said") == "10 of 30 photos."
    assert tab.complaints == []
