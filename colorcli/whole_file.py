"""Files that are there whole or not at all: written under a temporary name beside their own, then renamed.

A name with the number of a process is left behind only by one that was killed: `is_running` tells.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from colorcli.errors import OutputError

# Names of files that are not whole yet: .walk.0001.png.4711-0f3c22a9.tmp, with the number of their process.
TEMPORARY = re.compile(r"\..+\.(?P<pid>\d{1,10})(-[0-9a-f]+)?\.(tmp|part)", re.DOTALL)
LONGEST_TEMPORARY = 200   # bytes of the real name in it


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; on leaving the file is on disk under its real name, or gone.

    Raises OutputError if the folder is missing, read-only or full.
    """
    with in_place_of(path, _output_error) as temporary:
        # Python names the reason (read-only, no such folder); the picture library would only say "failed".
        temporary.open("xb").close()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors makes its files anew, for the owner alone, whatever the umask says
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())


@contextlib.contextmanager
def in_place_of(path: Path, told: Callable[[Path, OSError], OutputError]) -> Iterator[Path]:
    """Give a temporary name, where nothing is yet; on leaving what was written there takes its real one, or is gone.

    told: the words for a failure. Raises OutputError. It is for the caller to see that the file is on disk.
    """
    temporary = temporary_beside(path)
    try:
        yield temporary
        rename_into_place(temporary, path)
    except BaseException as problem:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(problem, OSError):
            raise told(path, problem) from problem
        raise


def temporary_beside(path: Path) -> Path:
    """Give a name in the same folder that no other process uses, on no machine; `TEMPORARY` knows it again."""
    # Two machines may have processes of one number. Cut, for a name may already be as long as the file system takes.
    name = os.fsencode(path.name)[:LONGEST_TEMPORARY].decode(errors="ignore")
    return path.with_name(f".{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def is_running(process: int) -> bool:
    """Whether a process of this machine runs that has this number; it may be another one by now."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass   # somebody else's
    return True


def rename_into_place(temporary: Path, path: Path) -> None:
    """Rename a file over another one, which is the old one or the new one at every moment. Raises OSError."""
    made = temporary.stat()
    try:
        temporary.replace(path)
    except FileNotFoundError:
        # A file server whose answer was lost is asked again, and then knows no such file: it has long been renamed.
        there = path.stat()
        if (there.st_dev, there.st_ino) != (made.st_dev, made.st_ino):
            raise


def _output_error(path: Path, problem: OSError) -> OutputError:
    reason, hint = problem.strerror or str(problem), "check the folder and the disk it is on, or choose another with -o"
    if not path.parent.is_dir():
        reason, hint = f"{path.parent} is no folder", "make the folder, or choose another with -o"
    elif isinstance(problem, PermissionError) or problem.errno == errno.EROFS:
        reason, hint = f"{path.parent} is read-only", "choose another folder with -o"
    elif problem.errno == errno.ENOSPC or _free_bytes(path.parent) < 1_000_000:
        reason, hint = f"the disk of {path.parent} is full", "free some space and run the same command again"
    return OutputError(f"{path.name} cannot be written: {reason}", hint=hint)


def _free_bytes(folder: Path) -> float:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return float("inf")
