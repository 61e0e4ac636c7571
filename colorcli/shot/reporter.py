"""Who is told of the progress of a run, and the account of what became of the frames of one shot."""

from typing import Protocol

from colorcli.shot.manifest import FrameRecord, Totals
from colorcli.shot.plan import ShotPlan


class Reporter(Protocol):
    """Who is told of the progress; always from the thread that called `run_plans`."""

    def started(self, plan: ShotPlan) -> None:
        """A shot begins."""

    def frame(self, record: FrameRecord, done: int, total: int) -> None:
        """A frame is settled; done and total count the frames of all shots of this run."""

    def warning(self, text: str) -> None:
        """Something is wrong that stops nothing."""

    def finished(self, totals: Totals) -> None:
        """The run is over, however it ended; totals are over all shots."""


class Account:
    """What became of the frames of one shot in this run, each told as it is settled."""

    def __init__(self, reporter: Reporter, done: int, total: int) -> None:
        """done, total: frames of all shots of the run, settled so far and in all."""
        self.records: list[FrameRecord] = []
        self._reporter = reporter
        self._done, self._total = done, total

    def tell(self, record: FrameRecord) -> None:
        """Count a record and tell the reporter."""
        self.records.append(record)
        if record.status != "missing":
            self._done += 1
            self._reporter.frame(record, self._done, self._total)

    def warn(self, text: str) -> None:
        """Tell of what is wrong and stops nothing."""
        self._reporter.warning(text)
