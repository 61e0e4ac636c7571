"""Warm starts: which frame begins from which other, and the coloring of a frame from the one before it.

A shot falls into drawings, each of one or more frames (a hold). A drawing begins from the colors of the one before it,
unless it is the first, comes after a gap, is of another size, or begins in another stretch of `every` frame numbers.
All of this is read from names and pixels, so a frame comes out the same whatever part of a shot a process colors: what
a frame begins from and was not colored by the same process is colored again, without being written.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorcli.errors import DeviceError, FrameError, WeightsError
from colorcli.images import file_digest, picture_digest, read_picture, read_size
from colorcli.model.machine import out_of_memory
from colorcli.prepare.frame import PreparedFrame
from colorcli.presets import Preset
from colorcli.shot.engine import Colorizer, fingerprint
from colorcli.shot.manifest import FrameRecord
from colorcli.shot.plan import FrameJob

Float = NDArray[np.float32]
RecordKey = tuple[str, int | str]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drawing:
    """What decides how a drawing is colored, beside what it begins from."""

    pixels: str             # digest
    masks: tuple[str, ...]  # digests
    size: tuple[int, int]   # width, height


class Chains:
    """What each frame of a shot begins from. Any thread may ask."""

    def __init__(self, settings: str, key: str, every: int, known: Mapping[RecordKey, FrameRecord]) -> None:
        """settings, key: digests that are part of every fingerprint. known: records of earlier runs, which save reading
        the pictures that they know."""
        self._settings, self._key, self._every, self._known = settings, key, every, known
        self._drawings: dict[str, Future[Drawing | None]] = {}  # by the name of the source
        self._failed: set[Drawing] = set()
        self._lock = threading.Lock()

    def before(self, job: FrameJob) -> str | None:
        """Fingerprint of the drawing whose colors a frame begins from; None: it starts from noise."""
        print_: str | None = None
        for each in self.leading_to(job):
            print_ = self.print_of(each, print_)
        return print_

    def leading_to(self, job: FrameJob) -> list[FrameJob]:
        """The drawings that have to be colored one after the other before a frame is, the first from noise.

        A drawing that is held is named by its first frame.
        """
        found: list[FrameJob] = []
        first = self._first_of_hold(job)
        while (last := first.before) is not None and self._follows(first, last):
            earlier = self._first_of_hold(last)
            if self._stretch(first) != self._stretch(earlier):
                break
            found.append(earlier)
            first = earlier
        return found[::-1]

    def print_of(self, job: FrameJob, before: str | None) -> str:
        """Fingerprint of a drawing that was begun from another; its file's format does not count."""
        drawing = self.drawing(job)
        assert drawing is not None, job.name
        return fingerprint(self._settings, self._key, drawing.pixels, drawing.masks, "", before)

    def see(self, job: FrameJob, drawing: Drawing) -> None:
        """Learn what is on a frame that was read anyway."""
        with self._lock:
            if job.source.name not in self._drawings:
                self._drawings[job.source.name] = Future()
                self._drawings[job.source.name].set_result(drawing)

    def give_up(self, job: FrameJob) -> None:
        """Take a frame for a gap: it could not be colored."""
        drawing = self.drawing(job)
        if drawing is not None:
            self._failed.add(drawing)

    def drawing(self, job: FrameJob) -> Drawing | None:
        """What is on a frame; None: it cannot be read, or could not be colored."""
        name = job.source.name
        with self._lock:
            mine = name not in self._drawings
            answer = self._drawings.setdefault(name, Future())
        if mine:
            try:
                answer.set_result(self._read(job))
            except Exception:
                answer.set_result(None)  # it is told where the frame itself is colored
        drawing = answer.result()
        return None if drawing in self._failed else drawing

    def _read(self, job: FrameJob) -> Drawing:
        pictures = [read_picture(path) for path in job.masks]
        size = job.size or read_size(job.source)
        if any(mask.size != size for mask in pictures):
            raise FrameError(f"{job.source.name} and its masks are not of one size")
        masks = tuple(picture_digest(mask) for mask in pictures)
        known = self._known.get((job.sequence, job.number if job.number is not None else job.name))
        if known is not None and known.pixels_sha256 and known.source_sha256 == file_digest(job.source):
            return Drawing(known.pixels_sha256, masks, size)
        return Drawing(picture_digest(read_picture(job.source)), masks, size)

    def _first_of_hold(self, job: FrameJob) -> FrameJob:
        drawing = self.drawing(job)
        while job.before is not None and drawing is not None and self.drawing(job.before) == drawing:
            job = job.before
        return job

    def _follows(self, job: FrameJob, last: FrameJob) -> bool:
        one, two = self.drawing(last), self.drawing(job)
        return one is not None and two is not None and one.size == two.size

    def _stretch(self, job: FrameJob) -> int:
        assert job.number is not None, "only numbered frames come one after the other"
        return job.number // self._every


class WarmStarter:
    """Colors frames in order, each from where the one before it ended; it remembers only the last."""

    def __init__(self, chains: Chains, prepare: Callable[[FrameJob], PreparedFrame]) -> None:
        """prepare: reads a frame that was not asked for and makes it ready. Raises FrameError."""
        self._chains, self._prepare = chains, prepare
        self._last: tuple[str, Any] | None = None  # fingerprint of a drawing, and where it ended

    def color(
        self, job: FrameJob, frame: PreparedFrame, colorizer: Colorizer, reference: Any, preset: Preset
    ) -> tuple[Float, str | None]:
        """Give a frame's layer, and the fingerprint of the drawing that it was begun from.

        Raises what the colorizer raises; the frames behind then begin anew.
        """
        for lead in self._still_to_color(self._chains.leading_to(job)):
            try:
                self._color(lead, self._prepare(lead), colorizer, reference, preset)
            except (DeviceError, WeightsError):
                raise
            except Exception as error:
                if out_of_memory(error):
                    raise
                log.warning("%s cannot be colored, and the frames behind it begin anew: %s", lead.name, error)
                self._chains.give_up(lead)
        return self._color(job, frame, colorizer, reference, preset)

    def _still_to_color(self, leads: Sequence[FrameJob]) -> Sequence[FrameJob]:
        """Those of the drawings before a frame that lie behind the last one that was colored."""
        prints: list[str] = []
        for lead in leads:
            prints.append(self._chains.print_of(lead, prints[-1] if prints else None))
        if self._last is not None and self._last[0] in prints:
            return leads[prints.index(self._last[0]) + 1 :]
        return leads

    def _color(
        self, job: FrameJob, frame: PreparedFrame, colorizer: Colorizer, reference: Any, preset: Preset
    ) -> tuple[Float, str | None]:
        before = self._chains.before(job)
        start = None
        if before is not None:
            assert self._last is not None and self._last[0] == before, "what it begins from was colored just now"
            start = self._last[1]
        try:
            layer, end = colorizer.color_next(frame, start, reference, preset)
        except Exception:
            self._chains.give_up(job)
            raise
        self._last = self._chains.print_of(job, before), end
        return layer, before
