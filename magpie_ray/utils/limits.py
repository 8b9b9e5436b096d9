"""What a process, or its machine, has run out of: open files, threads, room in a folder; and the remedy.

Known by text, because most of it comes out of logs of other processes. Invariant: what the text does not say
plainly is no limit.
"""

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from magpie_ray.errors import MachineLimitError

_ALL_FILES = re.compile(r"\[Errno 23\]|[Tt]oo many open files in system")
_FILES = re.compile(r"\[Errno 24\]|[Tt]oo many open files")
_THREADS = re.compile(
    r"can't start new thread|pthread_create|[Tt]hread creation failed|unable to create new (native )?thread"
    # From fork, and from std::thread of C++.
    r"|BlockingIOError: \[Errno 11\] Resource temporarily unavailable(?! *:)|system_error.*"
    r"Resource temporarily unavailable|fork: .*Resource temporarily unavailable"
)
_ROOM = re.compile(r"\[Errno (28|122)\]|No space left on device|Disk quota exceeded|OutOfDiskError")
_REMEDIES = {
    _ALL_FILES: (
        "The machine can't open more files: end what holds them open, or raise fs.file-max (`sysctl "
        "fs.file-max` shows it)"
    ),
    _FILES: (
        "The process may not open more files: raise the limit, for example with `ulimit -n 65536` "
        "(LimitNOFILE of a service), in the shell that starts Ray on that machine, or this command"
    ),
    _THREADS: (
        "No further thread or process may start there: raise the limit, for example with `ulimit -u 65536` "
        "(--pids-limit of a container, podPidsLimit on Kubernetes), or end other processes of the user"
    ),
    _ROOM: (
        "A disk of that machine is full: free some room there. Where it is the disk of temporary files: set "
        "TMPDIR to a folder on another one, in the shell that starts Ray on that machine, or this command"
    ),
}


def is_process_limit(text: str) -> bool:
    """Whether the text tells of a limit on open files, threads or processes."""
    return any(kind.search(text) for kind in (_ALL_FILES, _FILES, _THREADS))


def limit_remedy(text: str) -> str:
    """What to do about the limit that the text tells of, as a sentence without its full stop; "" for none."""
    return next((remedy for kind, remedy in _REMEDIES.items() if kind.search(text)), "")


@contextmanager
def limits_told() -> Iterator[None]:
    """MachineLimitError, with a remedy, in place of an error of the system that tells of a limit."""
    try:
        yield
    except (OSError, RuntimeError) as exc:
        if not (remedy := limit_remedy(f"{type(exc).__name__}: {exc}")):
            raise
        raise MachineLimitError(f"{exc}. {remedy}") from exc


def check_room(folder: str, *, nbytes: int) -> None:
    """MachineLimitError where the folder's disk has less room for this user. folder: may not exist yet."""
    with suppress(OSError):
        free = shutil.disk_usage(folder).free
        if free < nbytes:
            raise MachineLimitError(
                f"{folder} is full ({free >> 20:,} MiB are free), and temporary files need room: free some, "
                "or set TMPDIR to a folder on another disk"
            )


def reaches_limit(exc: BaseException) -> bool:
    """Whether the system refused this process another open file or thread."""
    number = exc.errno if isinstance(exc, OSError) else None
    is_thread = isinstance(exc, RuntimeError) and "start new thread" in str(exc)
    return number in (errno.EMFILE, errno.ENFILE) or is_thread
