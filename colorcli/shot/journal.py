"""The journals of a shot: each process appends to one of its own, and reads what the others write meanwhile."""

import errno
import os
import threading
import time
from collections.abc import Collection
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType

from colorcli.errors import OutputError
from colorcli.files import open_plain
from colorcli.shot.manifest import (
    THERE,
    FrameRecord,
    JournalLine,
    journal_paths,
    now,
    output_error,
    read_line,
    read_lines,
    record_line,
    record_order,
    write_atomically,
)

BLOCK_BYTES = 1 << 16
LINE_BYTES, FEW_FRAMES = 1000, 250      # of a record, about; a journal of so few frames is quick to read
LONGEST = 4                             # so many records of a frame are kept, about
LEAST_SECONDS, MOST_SHARE = 1.0, 0.02   # between two listings of OUT, and of the time what they may take


class Journal:
    """The open journal of one process: records are appended, each a line that is written at once and whole.

    Any thread may add. No other process may have the same journal open: `Leases` see to it.
    """

    def __init__(self, path: Path) -> None:
        """Open for appending; a torn last line of a killed process is taken away. Raises OutputError."""
        self.path = path
        self._lock, self._saving = threading.Lock(), threading.Lock()
        self._torn = False                # the last line did not get onto the disk whole
        self._added = self._saved = 0     # records
        try:
            self._file = _open(path)
            self._begin = _mend(self._file)   # where the lines of this process do
        except OSError as error:
            raise output_error(path, error) from error

    def add(self, record: FrameRecord) -> None:
        """Append one record; once a record of a picture is added, no power cut loses it. Raises OutputError."""
        line = record_line(record) + b"\n"
        made = record.status in THERE and record.status != "skipped"
        try:
            with self._lock:
                if made:
                    self._follow()
                self._append(line)
                self._added += 1
                mine = self._added
            if made:
                self._save(mine)
        except OSError as error:
            raise output_error(self.path, error) from error

    def close(self) -> None:
        """Bring everything to the disk. Raises OutputError."""
        try:
            try:
                with self._lock:
                    self._follow()
                os.fsync(self._file)
            finally:
                os.close(self._file)
        except OSError as error:
            raise output_error(self.path, error) from error

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        """Write a line in one piece, so that a kill leaves all of it or nothing."""
        line = b"\n" + line if self._torn else line
        written = os.write(self._file, line)
        self._torn = written < len(line) and (written > 0 or self._torn)
        if written < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _save(self, mine: int) -> None:
        """Bring this thread's record to the disk, with those that others added by then; nothing if one of them did."""
        with self._saving:
            if self._saved < mine:
                added = self._added
                os.fsync(self._file)
                self._saved = added

    def _follow(self) -> None:
        """Go on in the file that has the journal's name now, if somebody merged or deleted the one it was begun in."""
        try:
            there = self.path.stat()
        except FileNotFoundError:
            there = None
        opened = os.fstat(self._file)
        if there is not None and os.path.samestat(there, opened):
            return
        lines = _read_at(self._file, self._begin, opened.st_size)
        file = _open(self.path)
        os.close(self._file)
        self._file, self._begin = file, _mend(file)
        if lines:
            self._append(lines)   # some of them may have been taken over; twice said is said


class JournalReader:
    """Reads on in all journals of a shot: what other processes have finished since the last look."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._read: dict[str, tuple[int, int]] = {}   # journal -> its inode, and how many bytes were read
        self._in_use: set[str] = set()
        self._next_listing = 0.0                      # by this process's own clock

    def read(self, in_use: Collection[str], own: str | None = None) -> list[FrameRecord]:
        """Give the records that are new, of each journal the newest of a frame; what is being written comes next time.

        in_use: journals that other processes have open, by name; those are always read. own: the one not to read.
        The others are looked at when that was last done a while ago: a process may have come and gone.
        """
        started = time.monotonic()
        names = self._in_use | set(in_use)
        if started >= self._next_listing:
            names |= {path.name for path in journal_paths(self._out)}
            now = time.monotonic()
            self._next_listing = now + max(LEAST_SECONDS, (now - started) / MOST_SHARE)
        self._in_use = set(in_use)
        return [record for name in sorted(names - {own}) for record in self._rest_of(name)]

    def _rest_of(self, name: str) -> list[FrameRecord]:
        known, begin = self._read.get(name, (0, 0))
        try:
            # Opened even if nothing seems to be new: a file server's client may know an old size until then.
            with open_plain(self._out / name) as file:
                status = os.fstat(file.fileno())
                if status.st_ino != known or status.st_size < begin:
                    begin = 0   # another file of the same name
                file.seek(begin)
                newest: dict[tuple[str, int | str], FrameRecord] = {}   # a journal of many runs is not held in memory
                for text in file:
                    if not text.endswith(b"\n"):
                        break
                    begin += len(text)
                    line = read_line(text.rstrip(b"\n"))
                    if line.record is None or not line.counts:
                        continue   # `verify` tells of them
                    known_record = newest.get(line.record.key)
                    if known_record is None or record_order(line.record) >= record_order(known_record):
                        newest[line.record.key] = line.record
        except OSError:
            return []
        self._read[name] = status.st_ino, begin
        return list(newest.values())


def later_than(finished: str) -> str:
    """The time as it is written into records, but after another record's: the clock that set that one may be ahead."""
    time_now = now()
    if time_now > finished:
        return time_now
    try:
        return (datetime.fromisoformat(finished) + timedelta(microseconds=1)).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):   # no time at all
        return finished


def shorten(path: Path, frames: int) -> bool:
    """Take the records out of a journal that were superseded in it, if it is several times as long as it has to be.

    A shot that is colored again and again would else take longer to begin with every run. frames: of the shot. Only for
    who has the journal to itself. Lines that do not count stay, for `verify` to tell. On a full disk all of it stays.
    """
    try:
        if path.stat().st_size < LINE_BYTES * LONGEST * max(frames, FEW_FRAMES):
            return False
    except OSError:
        return False
    if is_torn(path):
        Journal(path).close()   # takes the torn line away while it is the last
    newest: dict[tuple[str, int | str], JournalLine] = {}
    others: list[JournalLine] = []
    for line in read_lines(path):
        if line.record is None or not line.counts:
            others.append(line)
            continue
        known = newest.get(line.record.key)
        if known is None or known.record is None or record_order(line.record) >= record_order(known.record):
            newest[line.record.key] = line
    try:
        write_atomically(path, b"".join(line.text + b"\n" for line in (*others, *newest.values())))
    except OutputError:
        return False
    return True


def is_torn(path: Path) -> bool:
    """Whether a journal's last line was not written to its end."""
    try:
        with open_plain(path) as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False


def _open(path: Path) -> int:
    # No link: a result that came from elsewhere could lead the records into any file.
    how = os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    return os.open(path, os.O_RDWR | how, 0o666)


def _mend(file: int) -> int:
    """Close the last line if it is a whole record, else take it away; give the length of the file then."""
    end = begin = os.fstat(file).st_size
    tail = b""
    while begin > 0 and b"\n" not in tail:
        begin = max(begin - BLOCK_BYTES, 0)
        tail = _read_at(file, begin, end)
    line = tail[tail.rfind(b"\n") + 1 :]
    if not line:
        return end
    if read_line(line).record is None:
        os.ftruncate(file, end - len(line))
        return end - len(line)
    os.write(file, b"\n")
    return end + 1


def _read_at(file: int, begin: int, end: int) -> bytes:
    os.lseek(file, begin, os.SEEK_SET)   # appending does not care where it stands
    parts = []
    while begin < end and (part := os.read(file, end - begin)):
        parts.append(part)
        begin += len(part)
    return b"".join(parts)
