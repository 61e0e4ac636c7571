"""The records of a shot while it runs: what is known of its frames, and what this process adds to its journal."""

from collections.abc import Iterable
from pathlib import Path

from colorcli.shot.journal import Journal, later_than
from colorcli.shot.layer_files import with_earlier_layers
from colorcli.shot.manifest import THERE, FrameKey, FrameRecord
from colorcli.shot.plan import FrameJob


class Records:
    """What is recorded of the frames in one OUT. Any thread may ask and add; one of them learns."""

    def __init__(self, out: Path, journal: Journal, known: Iterable[FrameRecord], overwrite: bool) -> None:
        """known: of earlier runs, one for each frame. overwrite: pictures of earlier runs are made anew."""
        self._out, self._journal, self._overwrite = out, journal, overwrite
        self.known: dict[FrameKey, FrameRecord] = {record.key: record for record in known}
        # By its fingerprint, a record of a picture that lies in OUT and need not be made anew.
        self.pictures: dict[str, FrameRecord] = {
            record.fingerprint: record
            for record in self.known.values()
            if record.fingerprint and record.status in THERE and not overwrite
        }
        self._fresh: set[FrameKey] = set()   # frames that another process finished during this run

    def of(self, job: FrameJob) -> FrameRecord | None:
        """What is known of a frame."""
        return self.known.get(job.key)

    def counts(self, known: FrameRecord) -> bool:
        """Whether a picture may stay as it is if it is the one that is wanted."""
        return not self._overwrite or known.key in self._fresh

    def learn(self, record: FrameRecord) -> None:
        """Take over what another process has recorded, if it is newer."""
        known = self.known.get(record.key)
        if known is not None and record.finished <= known.counts_from:
            return
        self.known[record.key] = record
        made = record.status in THERE and (record.status != "skipped" or not self._overwrite)
        if made:
            self._fresh.add(record.key)
        if made and record.fingerprint:
            self.pictures[record.fingerprint] = record

    def add(self, record: FrameRecord) -> FrameRecord:
        """Write a record into the journal, with the time; gives it as it was written. Raises OutputError."""
        known = self.known.get(record.key)
        # A journal does not grow with every run that finds nothing changed.
        if known is not None and record.status in ("skipped", "missing") and _says_the_same(record, known):
            return known
        if known is not None and record.status in ("written", "held"):
            record = with_earlier_layers(self._out, known, record)
        # The newest record counts, and it may be that of a machine whose clock is an hour ahead.
        record = record.model_copy(update={"finished": later_than(known.counts_from if known else "")})
        self._journal.add(record)
        return record


def _says_the_same(record: FrameRecord, known: FrameRecord) -> bool:
    return record.model_copy(update={"finished": known.finished}) == known
