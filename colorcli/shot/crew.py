"""What other processes must do that color the frames of a shot in the place of the one that runs it."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from colorcli.shot.drawings import Drawings
from colorcli.shot.engine import Engine
from colorcli.shot.manifest import FrameRecord
from colorcli.shot.plan import FrameJob, ShotPlan


class Crew(Protocol):
    """Other processes that color frames and write them, in the place of this one; always called from one thread."""

    @property
    def room(self) -> int:
        """How many frames may be on their way at the same time."""

    def start(self, engine: Engine) -> None:
        """Begin to load the model everywhere, without waiting; called again for every frame."""

    def begin(self, plan: ShotPlan, settings: str, key: str, drawings: Drawings | None) -> None:
        """A shot begins. settings, key: digests. drawings: for frames that depend on others; grows on the way."""

    def color(
        self, job: FrameJob, needed: Sequence[FrameJob], keep: Callable[[FrameRecord], FrameRecord]
    ) -> Future[FrameRecord]:
        """Give the record of a frame that will be written, or failed. needed: the frames whose drawings it depends on.

        keep: called in any thread as soon as a picture is written, with its record; gives the record as it was kept.
        Raises OutputError.
        """

    def stop(self) -> None:
        """Wait for the frames that are being colored, and cancel the others."""

    def news(self) -> Sequence[str]:
        """What is wrong that stops nothing, and was not told yet."""

    def describe(self) -> Mapping[str, Any]:
        """What is used, as a colorizer tells it, and "notes": who did what."""


def begin_to_load(engine: Engine, crew: Crew | None) -> None:
    """Begin to load the model where frames will be colored, without waiting. crew: None: in this process."""
    if crew is None:
        engine.loader.start()
    else:
        crew.start(engine)
