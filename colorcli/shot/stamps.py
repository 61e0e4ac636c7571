"""How a file is known again without being read: its size, its times and its number on the disk, kept beside its hash.

A run that finds ten thousand frames done would else read every drawing and every picture again, hundreds of gigabytes
from a file server, only to find that nothing changed. A file whose stamp is the one that was kept has not been written,
replaced, moved or restored since: all of that changes the time of its last change (ctime), which nothing but the system
can set. Where the stamp is another one, or none was kept, the bytes decide; so copying a shot to another disk costs one
reading and never a wrong frame. `--thorough` and `colorcli manifest verify` read everything, whatever the stamps say.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from colorcli.files import open_plain
from colorcli.images import MAX_PIXELS, Picture, picture_digest, read_picture
from colorcli.shot.manifest import FrameRecord, Stamp
from colorcli.shot.plan import FrameJob

WHOLE = 1_000_000        # nanoseconds: a disk whose times are multiples of this does not keep fine ones
COARSE_SECONDS = 2.0     # the coarsest times there are, those of FAT
FINE_SECONDS = 0.05      # a tick of the system's clock, with room; files are stamped by ticks


def stamped_digest(path: Path, known: str | None = None, stamp: Stamp | None = None) -> tuple[str, Stamp | None]:
    """Give the SHA-256 of the bytes of a file, and its stamp; `known` unread if the file still has that `stamp`.

    No stamp is given for a file that changed while it was read, or so lately that the next change might not show.
    Raises OSError.
    """
    # Opened even if it is not read: the client of a file server asks it for news only then.
    with open_plain(path) as stream:
        before = _stamp_of(stream)
        if known is not None and stamp == before:
            return known, stamp
        digest, lasts = _read_through(stream, before)
    return digest, before if lasts and is_settled(before, time.time()) else None


def new_digest(path: Path) -> tuple[str, Stamp | None]:
    """Give the SHA-256 and the stamp of a file that this process has just put there, whole and by a name of its own.

    No stamp on a disk that keeps only whole seconds: somebody may paint over the picture within the same one.
    Raises OSError.
    """
    with open_plain(path) as stream:
        before = _stamp_of(stream)
        digest, lasts = _read_through(stream, before)
    return digest, before if lasts and _is_fine(before) else None


def is_settled(stamp: Stamp, now: float) -> bool:
    """Whether a change after `now` (seconds since 1970) would give the file another stamp.

    Its times come from another clock where it lies on a file server: one that is behind makes files seem older. What is
    then taken on trust is a file of the same size that was written twice within one tick.
    """
    seconds = FINE_SECONDS if _is_fine(stamp) else COARSE_SECONDS
    return max(stamp[1], stamp[2]) / 1e9 + seconds < now


@dataclass(frozen=True)
class FrameFiles:
    """What goes into one frame, as far as it was read."""

    source: str                           # SHA-256 of the file
    source_stamp: Stamp | None
    masks: tuple[str, ...]                # digests of the decoded masks
    masks_stamps: tuple[Stamp, ...]       # empty: one of them has none
    mask_pictures: tuple[Picture, ...] | None   # None: they are as recorded and were not read

    @property
    def recorded(self) -> dict[str, Any]:
        """The same as fields of a record."""
        return {
            "source_sha256": self.source,
            "source_stamp": self.source_stamp,
            "masks_sha256": self.masks,
            "masks_stamps": self.masks_stamps,
        }


def look_at(job: FrameJob, known: FrameRecord | None, max_pixels: int = MAX_PIXELS) -> FrameFiles:
    """Look at the drawing and the masks of a frame; what has the stamp that its record says is not read.

    known: the record; None: everything is read. Raises OSError for the drawing, FrameError for a mask.
    """
    source, source_stamp = stamped_digest(
        job.source, known.source_sha256 if known else None, known.source_stamp if known else None
    )
    stamps = _stamps(job.masks)
    recorded = known is not None and len(known.masks_sha256) == len(known.masks_stamps) == len(job.masks)
    if known is not None and recorded and stamps == known.masks_stamps:
        return FrameFiles(source, source_stamp, known.masks_sha256, stamps, None)
    pictures = tuple(read_picture(path, max_pixels) for path in job.masks)
    now = time.time()
    settled = stamps == _stamps(job.masks) and all(is_settled(stamp, now) for stamp in stamps)
    digests = tuple(picture_digest(picture) for picture in pictures)
    return FrameFiles(source, source_stamp, digests, stamps if settled else (), pictures)


def _stamps(paths: Sequence[Path]) -> tuple[Stamp, ...]:
    """The stamps of files; none if one cannot be opened, which is told where it is read."""
    stamps = []
    for path in paths:
        try:
            with open_plain(path) as stream:
                stamps.append(_stamp_of(stream))
        except OSError:
            return ()
    return tuple(stamps)


def _read_through(stream: BufferedReader, before: Stamp) -> tuple[str, bool]:
    """The SHA-256 of an open file, and whether it still has the stamp that it had before it was read."""
    return hashlib.file_digest(stream, "sha256").hexdigest(), _stamp_of(stream) == before


def _stamp_of(stream: BufferedReader) -> Stamp:
    status = os.fstat(stream.fileno())
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _is_fine(stamp: Stamp) -> bool:
    """Whether the disk keeps more than whole seconds; programs may set one of the two times, but not both."""
    return any(nanoseconds % WHOLE for nanoseconds in stamp[1:3])
