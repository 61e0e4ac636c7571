"""Which other drawings decide how a frame looks: the one that it begins from, and those that have a say in its colors.

Which they are is read from names and pixels: see `warm` and `steady`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from colorcli.shot.drawings import Drawings
from colorcli.shot.engine import Engine
from colorcli.shot.manifest import FrameKey, FrameRecord
from colorcli.shot.plan import FrameJob, ShotPlan
from colorcli.shot.steady import Neighbors
from colorcli.shot.warm import Chains

STRETCH = 8   # frame numbers that one process takes together where frames depend on those around them


@dataclass(frozen=True)
class Ties:
    """What the frames of one shot have to do with each other. Any thread may ask."""

    drawings: Drawings | None     # None: every frame is colored for itself
    neighbors: Neighbors | None   # who has a say in a frame's colors; None: nobody
    chains: Chains | None         # what frames begin from; None: all from noise, or from a match
    stretch: int | None           # so many frame numbers belong into one pair of hands; None: they need not

    def digests(self, job: FrameJob) -> dict[str, str | None]:
        """The drawings beside its own that decide how a frame looks, for its record: the one before, those around."""
        return {
            "before_sha256": None if self.chains is None else self.chains.before(job),
            "around_sha256": None if self.neighbors is None else self.neighbors.digest(job),
        }

    def needed(self, job: FrameJob) -> list[FrameJob]:
        """The frames that one depends on."""
        leads = [] if self.chains is None else self.chains.leading_to(job)
        return leads + ([] if self.neighbors is None else self.neighbors.around(job))


def ties_of(plan: ShotPlan, engine: Engine, key: str, known: Mapping[FrameKey, FrameRecord]) -> Ties:
    """Say what the frames of a shot have to do with each other. key: its digest. known: see `Drawings`."""
    warm_start, steady = engine.preset.warm_start, engine.preset.steady
    if not (warm_start.on or steady.on):
        return Ties(None, None, None, None)
    drawings = Drawings(known, plan.request.max_pixels, not plan.request.thorough)
    return Ties(
        drawings,
        Neighbors(plan.sequences, drawings, steady.reach) if steady.on else None,
        Chains(engine.settings, key, warm_start.every, drawings) if warm_start.on else None,
        warm_start.every if warm_start.on else STRETCH,
    )
