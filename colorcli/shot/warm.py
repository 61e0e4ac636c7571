"""Warm starts: which frame begins from which other, and the coloring of a frame from the one before it.

A shot falls into drawings, each of one or more frames (a hold). A drawing begins from the colors of the one before it,
unless it is the first, comes after a gap, is of another size, or begins in another stretch of `every` frame numbers.
All of this is read from names and pixels, so a frame comes out the same whatever part of a shot a process colors: what
a frame begins from and was not colored by the same process is colored again, without being written.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorcli.errors import DeviceError, WeightsError
from colorcli.model.machine import out_of_memory
from colorcli.prepare.frame import PreparedFrame
from colorcli.presets import Preset
from colorcli.shot.drawings import Drawings
from colorcli.shot.engine import Colorizer, fingerprint
from colorcli.shot.plan import FrameJob

Float = NDArray[np.float32]

log = logging.getLogger(__name__)


class Chains:
    """What each frame of a shot begins from. Any thread may ask."""

    def __init__(self, settings: str, key: str, every: int, drawings: Drawings) -> None:
        """settings, key: digests that are part of every fingerprint."""
        self._settings, self._key, self._every, self._drawings = settings, key, every, drawings
        self._firsts: dict[Path, FrameJob] = {}  # frames of holds to the first of theirs

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
        drawing = self._drawings.of(job)
        assert drawing is not None, job.name
        return fingerprint(self._settings, self._key, drawing.pixels, drawing.masks, "", before)

    def _first_of_hold(self, job: FrameJob) -> FrameJob:
        drawing, first = self._drawings.of(job), job
        if drawing is None:
            return job
        while first.before is not None and self._drawings.of(first.before) == drawing:
            # A hold may go on for a thousand frames, and each of them asks.
            first = self._firsts.get(first.before.source, first.before)
        self._firsts[job.source] = first
        return first

    def _follows(self, job: FrameJob, last: FrameJob) -> bool:
        one, two = self._drawings.of(last), self._drawings.of(job)
        return one is not None and two is not None and one.size == two.size

    def _stretch(self, job: FrameJob) -> int:
        assert job.number is not None, "only numbered frames come one after the other"
        return job.number // self._every


class WarmStarter:
    """Colors frames in order, each from where the one before it ended; it remembers only the last."""

    def __init__(self, chains: Chains, drawings: Drawings, prepare: Callable[[FrameJob], PreparedFrame]) -> None:
        """prepare: reads a frame that was not asked for and makes it ready. Raises FrameError."""
        self._chains, self._drawings, self._prepare = chains, drawings, prepare
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
                self._drawings.give_up(lead)
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
            self._drawings.give_up(job)
            raise
        self._last = self._chains.print_of(job, before), end
        return layer, before
