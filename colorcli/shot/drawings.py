"""What is drawn on the frames of a shot, for frames that depend on others beside themselves."""

import contextlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from colorcli.errors import FrameError
from colorcli.images import MAX_PIXELS, picture_digest, read_picture, read_size
from colorcli.shot.manifest import FrameKey, FrameRecord
from colorcli.shot.plan import FrameJob
from colorcli.shot.stamps import look_at


@dataclass(frozen=True)
class Drawing:
    """What decides how a drawing is colored, beside the frames that it depends on."""

    pixels: str             # digest
    masks: tuple[str, ...]  # digests
    size: tuple[int, int]   # width, height


class Drawings:
    """What is on each frame of a shot, read when first asked for. Any thread may ask."""

    def __init__(
        self, known: Mapping[FrameKey, FrameRecord], max_pixels: int = MAX_PIXELS, trusts: bool = True
    ) -> None:
        """known: records of earlier runs, which save reading the pictures that they know.

        trusts: a file is known again by its stamp; else by its bytes.
        """
        self._known = known
        self._max_pixels, self._trusts = max_pixels, trusts
        self._read_so_far: dict[str, Future[Drawing | None]] = {}  # by the name of the source
        self._found: list[tuple[str, Drawing | None]] = []
        self._failed: set[Drawing] = set()
        self._lock = threading.Lock()

    def see(self, job: FrameJob, drawing: Drawing) -> None:
        """Learn what is on a frame that was read anyway."""
        self.learn([(job.source.name, drawing)])

    def learn(self, found: Iterable[tuple[str, Drawing | None]]) -> None:
        """Take over what another process has found."""
        with self._lock:
            for name, drawing in found:
                if name not in self._read_so_far:
                    self._read_so_far[name] = Future()
                    self._read_so_far[name].set_result(drawing)
                    self._found.append((name, drawing))

    def found(self, since: int = 0) -> Sequence[tuple[str, Drawing | None]]:
        """What is on the frames that were read so far, by the names of their sources, but for the first `since`."""
        with self._lock:
            return self._found[since:]

    def give_up(self, job: FrameJob) -> None:
        """Take a frame for one that is not there: it could not be colored."""
        drawing = self.of(job)
        if drawing is not None:
            self._failed.add(drawing)

    def of(self, job: FrameJob) -> Drawing | None:
        """What is on a frame; None: it cannot be read, or could not be colored."""
        name = job.source.name
        with self._lock:
            mine = name not in self._read_so_far
            answer = self._read_so_far.setdefault(name, Future())
        if mine:
            drawing: Drawing | None = None
            with contextlib.suppress(Exception):   # it is told where the frame itself is colored
                drawing = self._read(job)
            with self._lock:
                self._found.append((name, drawing))
            answer.set_result(drawing)
        drawing = answer.result()
        return None if drawing in self._failed else drawing

    def _read(self, job: FrameJob) -> Drawing:
        known = self._known.get(job.key)
        files = look_at(job, known if self._trusts else None, self._max_pixels)
        size = job.size or read_size(job.source, self._max_pixels)
        pixels = known.pixels_sha256 if known is not None and known.source_sha256 == files.source else None
        pictures = files.mask_pictures
        if pictures is None and pixels is None:   # their size was right for another drawing
            pictures = tuple(read_picture(path, self._max_pixels) for path in job.masks)
        if any(mask.size != size for mask in pictures or ()):
            raise FrameError(f"{job.source.name} and its masks are not of one size")
        if pixels is None:
            pixels = picture_digest(read_picture(job.source, self._max_pixels))
        return Drawing(pixels, files.masks, size)
