"""What is handed out on a cluster: the frames of shots, each until there is a record of it."""

import contextlib
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path

from colorcli.errors import ColorcliError
from colorcli.farm.orders import ShotOrder
from colorcli.shot.drawings import Drawings
from colorcli.shot.manifest import FrameRecord
from colorcli.shot.plan import FrameJob, ShotPlan


@dataclass(frozen=True)
class Shot:
    """What frames belong to."""

    number: int
    plan: ShotPlan                 # with absolute paths
    order: ShotOrder
    drawings: Drawings | None
    places: Mapping[str, int]      # source -> place in the shot
    stretch: int                   # frames of which one worker colors as many as it can; 1: they have nothing in common
    begins_anew: bool              # where a stretch of frame numbers begins, whoever colors it
    probe: Path | None

    def block_of(self, job: FrameJob, workers: int) -> Hashable:
        """What a frame has something in common with: where frames depend on those around them, a stretch of them."""
        if self.stretch == 1 or job.number is None:
            return self.number, job.source.name
        if self.begins_anew:
            return self.number, job.sequence, job.number // self.stretch
        # Also a short shot is shared out among all.
        fair = max(1, -(-len(self.places) // max(1, 2 * workers)))
        return self.number, self.places[job.source.name] // min(self.stretch, fair)


@dataclass(eq=False)
class Task:
    """A frame to color."""

    shot: Shot
    job: FrameJob
    needed: tuple[FrameJob, ...]
    keep: Callable[[FrameRecord], FrameRecord]
    future: "Future[FrameRecord]"
    block: Hashable = None                              # what it has something in common with
    attempts: int = 0                                   # with workers that were lost
    blind: set[Hashable] = field(default_factory=set)   # places that could not read it

    @property
    def name(self) -> tuple[int, str]:
        return self.shot.number, self.job.source.name

    @property
    def alone(self) -> bool:
        """It may have been what its worker died of: others shall not be near when that happens again."""
        return self.attempts > 0

    @property
    def files(self) -> list[Path]:
        """What is read for it."""
        jobs = (self.job, *self.needed)
        return list(dict.fromkeys(path for job in jobs for path in (job.source, *job.masks)))

    def fail(self, error: ColorcliError) -> None:
        """There will be no record."""
        with contextlib.suppress(CancelledError):
            if self.future.set_running_or_notify_cancel():
                self.future.set_exception(error)
