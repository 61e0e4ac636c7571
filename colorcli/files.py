"""Files whose content nobody vouches for: opened only if they are plain ones, and read only up to a size."""

import errno
import hashlib
import io
import json
import os
import stat
from pathlib import Path
from typing import Any


class NotPlainError(OSError):
    """What a name leads to is a pipe, a device or a folder: reading it might never end."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(errno.EINVAL, f"it is {kind}, not a file", str(path))


class TooLargeError(OSError):
    """A file has more bytes than one of its kind ever needs."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(errno.EFBIG, f"it is larger than {most // 1024} kB", str(path))


LARGEST_JSON = 64 * 2**20   # bytes; the list of a model with a hundred thousand tensors has 20 MB

KINDS = {stat.S_ISFIFO: "a pipe", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device", stat.S_ISSOCK: "a socket"}


def open_plain(path: Path) -> io.BufferedReader:
    """Open a file for reading, in bytes; a link is followed to the file that it leads to.

    Raises OSError; NotPlainError for a pipe (whose opening would wait for a writer) or a device (which never ends),
    IsADirectoryError for a folder.
    """
    # A pipe is opened without waiting, and looked at only then: a name may lead to another file a moment later.
    try:
        opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError:   # a zero byte, or half a character
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from None
    try:
        mode = os.fstat(opened).st_mode
        kind = next((words for is_kind, words in KINDS.items() if is_kind(mode)), None)
        if kind is not None:
            raise NotPlainError(path, kind)
        return os.fdopen(opened, "rb")   # a folder is refused here, with its own words
    except BaseException:
        os.close(opened)
        raise


def read_plain(path: Path, most: int) -> bytes:
    """Read a file whole. Raises OSError as `open_plain` does, and TooLargeError for one of more than `most` bytes."""
    with open_plain(path) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise TooLargeError(path, most)
    return content


def file_digest(path: Path) -> str:
    """Give the SHA-256 of the bytes of a file. Raises OSError as `open_plain` does."""
    with open_plain(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: Path, most: int = LARGEST_JSON) -> Any:
    """Read a JSON file. Raises OSError as `read_plain` does, ValueError for what is no JSON."""
    return parse_json(read_plain(path, most))


def parse_json(text: str | bytes) -> Any:
    """Read JSON text. Raises ValueError, also for what is nested deeper than anything that means something."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
