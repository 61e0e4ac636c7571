"""One shot in one process, from its folder to its manifest: everything around the coloring of the frames."""

import contextlib
import sys

from colorcli.errors import ColorcliError, FrameError, OutputError
from colorcli.shot.crew import Crew, begin_to_load
from colorcli.shot.engine import Engine
from colorcli.shot.journal import Journal, JournalReader, shorten
from colorcli.shot.keys import ShotKey, read_key
from colorcli.shot.leases import Leases, LeaseTimes
from colorcli.shot.manifest import FrameRecord, Totals, merge_records, refuse_newer
from colorcli.shot.plan import ShotPlan, make_out_folder, outputs_there
from colorcli.shot.records import Records
from colorcli.shot.reporter import Account, Reporter
from colorcli.shot.run_manifest import RunManifest
from colorcli.shot.sharing import Sharing, free_journal, mend_journals
from colorcli.shot.stages import Stages, send_home

INTERRUPTED, TERMINATED = 130, 143   # exit codes


class Terminated(BaseException):
    """SIGTERM came: a farm wants its machine back."""


class ShotRun:
    """One shot on its way."""

    def __init__(
        self,
        plan: ShotPlan,
        engine: Engine,
        reporter: Reporter,
        threads: int,
        done: int,
        total: int,
        crew: Crew | None = None,
        lease_times: LeaseTimes | None = None,
    ) -> None:
        """crew: who colors the frames, None: this process. lease_times: see there."""
        self.plan = plan
        self._engine, self._threads, self._crew = engine, threads, crew
        self._leases = Leases(plan.out, lease_times)
        self._account = Account(reporter, done, total)
        self._manifest = RunManifest(plan, engine)

    def totals(self) -> Totals:
        """What became of the frames of this shot, in this run."""
        return Totals.of(self._account.records, self._manifest.seconds)

    def failed(self) -> list[FrameRecord]:
        """The frames that failed, in order."""
        order = {job.output.name: place for place, job in enumerate(self.plan.jobs)}
        failed = [record for record in self._account.records if record.status == "failed"]
        return sorted(failed, key=lambda record: order.get(record.output or "", 0))

    def run(self) -> None:
        """Color the shot. Raises KeyImageError, OutputError, DeviceError, WeightsError; KeyboardInterrupt, Terminated.

        However it ends, frames that are finished are recorded, and the manifest says how it ended.
        """
        make_out_folder(self.plan.out)
        refuse_newer(self.plan.out)
        with self._leases:
            self._leases.sweep()
            try:
                self._run()
            finally:
                if self._leases.are_shared:
                    with contextlib.suppress(OutputError):   # how the run ended is what counts
                        self._leases.sweep()                 # what died meanwhile

    def _run(self) -> None:
        if self._is_sure_to_color():
            begin_to_load(self._engine, self._crew)
        exit_code: int = 1
        key: ShotKey | None = None
        stages: Stages | None = None
        path = self.plan.out / free_journal(self._leases, self.plan.out, self.plan.journal_name)
        shorten(path, len(self.plan.jobs))
        with Journal(path) as journal:
            mend_journals(self._leases, self.plan.out, journal.path)
            try:
                self._tell_problems()
                key = read_key(self.plan)
                stages = self._stages(key, journal)
                stages.run()
                exit_code = FrameError.exit_code if self.failed() else 0
            except ColorcliError as error:
                exit_code = error.exit_code
                raise
            except KeyboardInterrupt:
                exit_code = INTERRUPTED
                raise
            except Terminated:
                exit_code = TERMINATED
                raise
            finally:
                if stages is not None:
                    stages.drain()
                elif self._crew is not None:
                    send_home(self._crew, self._account)
                failing = sys.exc_info()[0] is not None
                # A disk that is full for the frame is full for the manifest too: the first failure is the one to tell.
                with contextlib.suppress(*([OutputError] if failing else [])):
                    records = self._account.records
                    self._manifest.write(path.name, key, exit_code, records, self._leases, self._crew)

    def _stages(self, key: ShotKey, journal: Journal) -> Stages:
        """What the frames go through."""
        plan = self.plan
        journals = JournalReader(plan.out)
        records = Records(plan.out, journal, merge_records(journals.read(())), plan.request.overwrite)
        sharing = Sharing(self._leases, journals, records, journal.path.name, self._account.warn)
        return Stages(plan, self._engine, key, records, sharing, self._account, self._threads, self._crew)

    def _is_sure_to_color(self) -> bool:
        """Whether a look at names is enough to know that the model is needed."""
        there = frozenset() if self.plan.request.overwrite else outputs_there(self.plan)
        return any(job.size is not None and job.output.name not in there for job in self.plan.jobs)

    def _tell_problems(self) -> None:
        for problem in self.plan.problems:
            if problem.severity == "warning":  # errors come again, as failed frames
                self._account.warn(problem.message)
