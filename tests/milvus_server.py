"""A real Milvus server for the tests that need one."""

import fcntl
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

STARTING = Path(tempfile.gettempdir()) / "retrieval-tests-milvus.lock"
# What queries and flushes wait for (ms), and a server that starts again (s): tests take half as long.
QUICK = {
    "PROXY_TIMETICKINTERVAL": "50",
    "DATACOORD_SEGMENT_ASSIGNMENTEXPIRATION": "100",
    "COMMON_SESSION_TTL": "10",
}


def free_port() -> int:
    """A port of this machine that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def _bind(port: int) -> socket.socket | None:
    """Take a port even if connections of a server that had it are still being forgotten."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return None


class Server:
    """A Milvus server on free ports of this machine, with its data in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, client, peer = (free_port() for _ in range(3))
        self.uri = f"http://127.0.0.1:{self.port}"
        # Its etcd would take a port that is always the same.
        self.etcd = folder / "etcd.yaml"
        self.etcd.write_text(
            f"listen-client-urls: http://127.0.0.1:{client}\nadvertise-client-urls: http://127.0.0.1:{client}\n"
            f"listen-peer-urls: http://127.0.0.1:{peer}\ninitial-advertise-peer-urls: http://127.0.0.1:{peer}\n"
            f"initial-cluster: default=http://127.0.0.1:{peer}\n"
        )
        self.start()

    def start(self) -> None:
        """Start it, with the data that are there; one at a time: a start lets go of ports that it found."""
        milvus = pytest.importorskip("milvus")
        config = milvus.MilvusServerConfig(data_dir=str(self.folder), proxy_port=self.port)
        config.try_bind_port = _bind
        self.running = milvus.MilvusServer(config)
        with pytest.MonkeyPatch.context() as patch, STARTING.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for name, value in {**QUICK, "ETCD_CONFIG_PATH": str(self.etcd)}.items():
                patch.setenv(name, value)
            self.running.start()

    def stop(self) -> None:
        """Stop it, however long a busy machine takes, for which its own `stop` has no patience; data stay."""
        process = self.running.server_proc
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
        process.kill()
        process.wait(60)
        self.running.stop()
