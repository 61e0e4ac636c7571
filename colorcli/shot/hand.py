"""One pair of hands: colors frames that another process hands out, with the stages of a run of its own.

It keeps no journal and writes no manifest, and it leaves to the other process what is up to date and what is a held
drawing. What it gives for a frame is the record that goes into the journal there.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from colorcli.shot.drawings import Drawing
from colorcli.shot.engine import Engine
from colorcli.shot.journal import Journal, JournalReader
from colorcli.shot.keys import read_key
from colorcli.shot.leases import Leases
from colorcli.shot.manifest import FrameRecord, Totals, merge_records
from colorcli.shot.plan import FrameJob, ShotPlan, in_a_chain
from colorcli.shot.records import Records
from colorcli.shot.reporter import Account
from colorcli.shot.sharing import Sharing
from colorcli.shot.stages import Stages


class Hand(Stages):
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
        key = read_key(plan)
        journals = JournalReader(plan.out)
        records = Records(plan.out, _NoJournal(tell), merge_records(journals.read(())), plan.request.overwrite)
        sharing = _HandedOut(Leases(plan.out), journals, records, "", warn)
        account = Account(_Teller(warn), 0, len(jobs))
        # Which frames look the same is known where they are handed out.
        super().__init__(plan, engine, key, records, sharing, account, threads, finds_copies=False)
        self.key_digest = key.digest
        self._waiting_jobs.clear()
        self._more = more
        self._stopped = False
        self._jobs = {job.source.name: job for job in plan.jobs}

    def learn(self, found: Iterable[tuple[str, Drawing | None]]) -> None:
        """Take over what the other process knows of the drawings, by the names of their files."""
        if self._ties.drawings is not None:
            self._ties.drawings.learn(found)

    def work(self, jobs: Sequence[FrameJob]) -> None:
        """Color these frames, and those that come while it does. Raises as `Stages.run`."""
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
        self.drain()

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

    def _tell(self, record: FrameRecord) -> None:
        """It was told when it was there."""

    def _release(self, record: FrameRecord, planned: str | None) -> None:
        super()._release(record, planned)
        if planned is not None:
            self._leaders.pop(planned, None)   # the same hand may be given the frame again


class _HandedOut(Sharing):
    """Takes nothing and hears of nothing: a frame is claimed where it was handed out."""

    def claim(self, job: FrameJob, print_: str, stretch: int | None, known: FrameRecord | None) -> bool:
        return True

    def hear(self) -> None:
        """Nobody else colors it."""


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
