"""One pair of hands: colors frames that another process hands out, with the stages of a run of its own.

It keeps no journal and writes no manifest, and it leaves to the other process what is up to date and what is a held
drawing. What it gives for a frame is the record that goes into the journal there.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from colorcli.shot.drawings import Drawing
from colorcli.shot.engine import Engine
from colorcli.shot.journal import Journal
from colorcli.shot.keys import read_key
from colorcli.shot.manifest import FrameRecord, Totals
from colorcli.shot.plan import FrameJob, ShotPlan, in_a_chain
from colorcli.shot.stages import ShotRun


class Hand(ShotRun):
    """Colors frames of one shot as they come."""

    def __init__(
        self,
        plan: ShotPlan,
        engine: Engine,
        tell: Callable[[FrameRecord], None],
        warn: Callable[[str], None],
        more: Callable[[], Sequence[FrameJob]],
        threads: int = 2,
    ) -> None:
        """plan: of the whole shot; which of its frames are colored is told by `more`, which is asked on the way.

        tell: is given the record of each frame as soon as it is written, or failed, in any thread. Raises
        KeyImageError.
        """
        jobs = in_a_chain(plan.jobs, plan.sequences) if engine.preset.warm_start.on else plan.jobs
        plan = replace(plan, jobs=tuple(jobs), missing=(), problems=(), request=replace(plan.request, overwrite=True))
        super().__init__(plan, engine, _Teller(warn), threads, 0, len(jobs))
        self._waiting_jobs.clear()
        self._more = more
        self._stopped = False
        self._jobs = {job.source.name: job for job in plan.jobs}
        self._journal = _NoJournal(tell)
        self._reading = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self._writing = ThreadPoolExecutor(threads, thread_name_prefix="write")
        key = read_key(self.plan)
        self.key_digest = key.digest
        self._open(key)

    def learn(self, found: Iterable[tuple[str, Drawing | None]]) -> None:
        """Take over what the other process knows of the drawings, by the names of their files."""
        if self._drawings is not None:
            self._drawings.learn(found)

    def work(self, jobs: Sequence[FrameJob]) -> None:
        """Color these frames, and those that come while it does. Raises as `ShotRun.run`."""
        self._take(jobs)
        self._take_through()

    def stop(self) -> None:
        """Color no other frames than those that are begun; `work` ends soon, until `go_on`. From any thread."""
        self._stopped = True

    def go_on(self) -> None:
        """Color again."""
        self._stopped = False

    def close(self) -> None:
        """Give the threads back."""
        self._drain()

    def _take(self, jobs: Sequence[FrameJob]) -> None:
        """Jobs are known by the names of their files: those here know what comes before them."""
        self._waiting_jobs += [self._jobs[job.source.name] for job in jobs]

    def _fill(self) -> None:
        self._take(self._more())
        if self._stopped:
            self._waiting_jobs.clear()
            self._looking.clear()
            self._preparing.clear()
        super()._fill()

    def _claim(self, job: FrameJob, leases: Sequence[str]) -> bool:
        return True   # it is claimed where it was handed out

    def _hear(self) -> None:
        """Nobody else colors it."""

    def _copied(self, job: FrameJob, file: tuple[str, ...], record: FrameRecord) -> FrameRecord | None:
        return None   # which frames look the same is known where they are handed out

    def _tell(self, record: FrameRecord) -> None:
        """It was told when it was there."""

    def _release(self, record: FrameRecord, planned: str | None) -> None:
        super()._release(record, planned)
        if planned is not None:
            self._leaders.pop(planned, None)   # the same hand may be given the frame again


class _Teller:
    """Hands on the warnings of a run."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn

    def started(self, plan: ShotPlan) -> None:
        """It is told elsewhere."""

    def frame(self, record: FrameRecord, done: int, total: int) -> None:
        """It is told elsewhere."""

    def warning(self, text: str) -> None:
        self._warn(text)

    def finished(self, totals: Totals) -> None:
        """It is told elsewhere."""


class _NoJournal(Journal):
    """Tells records as soon as they are there, and keeps none."""

    def __init__(self, tell: Callable[[FrameRecord], None]) -> None:
        """No file is opened."""
        self._tell = tell

    def add(self, record: FrameRecord) -> None:
        self._tell(record)
