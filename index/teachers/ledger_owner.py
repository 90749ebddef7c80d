"""Which process it is that asks, so that another can tell when it has ended."""

import os
import socket

import psutil

SAME = 5.0  # seconds by which two looks at the birth of one process may differ, if the clock is set meanwhile


def describe_owner() -> str:
    """Name this process: host, number and the second of its birth, for numbers are used again."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def is_gone(owner: str) -> bool:
    """Whether the process so named has ended, as far as one can tell: only on the machine it ran on."""
    host, number, born = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(number))
        if process.status() == psutil.STATUS_ZOMBIE:  # killed, and its parent has not looked yet
            return True
        return abs(process.create_time() - float(born)) > SAME
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
