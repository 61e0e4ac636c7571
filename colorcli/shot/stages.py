"""The frames of a shot on their way: read ahead and prepare | color | finish and write, overlapped.

The calling thread colors, decides and keeps the journal; two small pools read and write around it. Every decision is
made in the order of the frames, and what a frame looks like depends on nothing but its own fingerprint.
"""

import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial

from colorcli.errors import ColorcliError, DeviceError, FrameError, OutputError, WeightsError
from colorcli.shot.coloring import Coloring, Ready
from colorcli.shot.crew import Crew, begin_to_load
from colorcli.shot.engine import Engine
from colorcli.shot.finishing import Finisher
from colorcli.shot.keys import ShotKey
from colorcli.shot.looking import Look, Looker
from colorcli.shot.manifest import Failure, FrameRecord
from colorcli.shot.plan import FrameJob, MissingFrame, ShotPlan
from colorcli.shot.records import Records
from colorcli.shot.reporter import Account
from colorcli.shot.sharing import Sharing
from colorcli.shot.ties import ties_of

SECONDS_BETWEEN_NEWS = 0.5     # of a crew, while it is waited for
LARGE_FRAME = 4_000_000        # pixels; of such frames fewer wait in memory
MOST_MISSING_RECORDS = 10_000  # --frames 1-1000000 of a shot with three frames is a slip, not a million records

log = logging.getLogger(__name__)


class Stages:
    """What every frame of one shot goes through; no finished frame is lost."""

    def __init__(
        self,
        plan: ShotPlan,
        engine: Engine,
        key: ShotKey,
        records: Records,
        sharing: Sharing,
        account: Account,
        threads: int,
        crew: Crew | None = None,
        *,
        finds_copies: bool = True,
    ) -> None:
        """threads: for reading, and as many for writing. crew: who colors, None: this process.

        finds_copies: see `Looker`.
        """
        self.plan = plan
        self._engine, self._key, self._crew = engine, key, crew
        self._records, self._sharing, self._account = records, sharing, account
        self._reading = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self._writing = ThreadPoolExecutor(threads, thread_name_prefix="write")
        self._ties = ties_of(plan, engine, key.digest, records.known)
        self._looker = Looker(plan, engine, key.digest, records, self._ties, finds_copies=finds_copies)
        self._coloring = Coloring(plan, engine, key, self._ties, self._looker, self._reading, account.warn)
        self._finisher = Finisher(plan.out, engine, records, self._coloring.prepared_key)
        large = max((job.size[0] * job.size[1] for job in plan.jobs if job.size), default=0) > LARGE_FRAME
        self._least_ahead = 1 if large else 2 * threads
        self._waiting_jobs = deque(plan.jobs)
        self._looking: deque[tuple[FrameJob, Future[Look]]] = deque()
        self._preparing: deque[tuple[Look, Future[Ready]]] = deque()
        self._finishing: deque[tuple[Look, Future[FrameRecord]]] = deque()
        self._leaders: dict[str, FrameRecord | None] = {}  # fingerprint -> its record; None: still on its way
        self._followers: dict[str, list[Look]] = {}        # held drawings that wait for their leader
        self._to_decode: set[str] = set()                  # outputs of frames that are looked at once more

    @property
    def _ahead(self) -> int:
        """How many frames wait in memory before and behind the color; a batch has to find all of its own there."""
        return max(self._least_ahead, self._engine.batch.frames)

    @property
    def _room(self) -> int:
        """How many frames are on their way behind the color, or with the crew."""
        return self._ahead if self._crew is None else self._crew.room

    def run(self) -> None:
        """Take every frame through. Raises KeyImageError, OutputError, DeviceError, WeightsError."""
        if self._crew is not None:
            self._crew.begin(self.plan, self._engine.settings, self._key.digest, self._ties.drawings)
        for missing in self.plan.missing[:MOST_MISSING_RECORDS]:
            self._keep(_missing_record(missing))
        self._take_through()

    def drain(self) -> None:
        """After an early end: record what the writing threads still finish, drop what was not colored."""
        self._reading.shutdown(wait=False, cancel_futures=True)
        self._followers.clear()
        if self._crew is not None:
            send_home(self._crew, self._account)
        recorded = {record.output for record in self._account.records}
        for look, finishing in self._finishing:
            # Ctrl-C may have come between the record and the queue.
            if look.job.output.name not in recorded and not finishing.cancelled():
                with contextlib.suppress(ColorcliError):
                    self._settle(look, finishing)
        self._finishing.clear()
        self._writing.shutdown(wait=True, cancel_futures=True)

    def _take_through(self) -> None:
        """Take the frames that wait through the stages."""
        while self._waiting_jobs or self._looking or self._preparing or self._finishing or self._sharing.is_left:
            if self._sharing.is_due:
                self._once_more(self._sharing.take_up())
            self._fill()
            if self._preparing:
                self._color_next(self._gather())
            elif self._looking:
                self._decide(*self._looking.popleft())
            self._collect(all_of_them=not (self._waiting_jobs or self._looking or self._preparing))
            left = self._waiting_jobs or self._looking or self._preparing or self._finishing
            if self._sharing.is_left and not left:
                self._once_more(self._sharing.wait())

    # --- reading and deciding --------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Keep reading and preparing ahead of the color."""
        while self._waiting_jobs or self._looking:
            while self._waiting_jobs and len(self._looking) < self._ahead:
                job = self._waiting_jobs.popleft()
                decode = job.output.name in self._to_decode
                self._looking.append((job, self._reading.submit(self._looker.look, job, decode)))
            if len(self._preparing) >= self._ahead or len(self._finishing) >= self._room:
                return
            if not self._looking[0][1].done():
                return
            self._decide(*self._looking.popleft())

    def _decide(self, job: FrameJob, looking: Future[Look]) -> None:
        """Skip a frame, repeat a held drawing, or send it on to be prepared."""
        try:
            look = looking.result()
        except OutputError:
            raise
        except Exception as error:
            self._fail(job, error)
            return
        if look.is_up_to_date:
            kept = self._keep(look.record)
            if kept.fingerprint:
                self._leaders.setdefault(kept.fingerprint, kept)
            return
        print_ = look.record.fingerprint
        assert print_ is not None
        if not self._sharing.claim(job, print_, self._ties.stretch, look.known):
            return
        self._sharing.hear()
        if self._records.of(job) is not look.known:
            self._look_again(job)   # another process has just finished it
            return
        if print_ in self._leaders:
            leader = self._leaders[print_]
            if leader is None:
                self._followers.setdefault(print_, []).append(look.without_pixels())
            else:
                self._repeat(look, leader)
            return
        earlier = self._records.pictures.get(print_)
        if earlier is not None and earlier.output != job.output.name and self._looker.is_whole(earlier):
            self._leaders[print_] = earlier
            self._repeat(look, earlier)
            return
        if look.picture is None and self._crew is None:
            self._look_again(job)   # the frame that it was to be a copy of is in other hands
            return
        self._leaders[print_] = None
        begin_to_load(self._engine, self._crew)
        if self._crew is not None:
            keep = partial(self._finisher.keep_of_crew, look.record)
            self._finishing.append((look.without_pixels(), self._crew.color(job, self._ties.needed(job), keep)))
            return
        self._preparing.append((look, self._coloring.prepare(look)))

    def _look_again(self, job: FrameJob) -> None:
        """Look at a frame once more, before the others."""
        self._sharing.give_back(job.output.name)
        self._to_decode.add(job.output.name)
        self._looking.appendleft((job, self._reading.submit(self._looker.look, job, True)))

    def _once_more(self, jobs: Sequence[FrameJob]) -> None:
        """Look at frames once more, after the others: they were in other hands."""
        self._to_decode.update(job.output.name for job in jobs)
        self._waiting_jobs += jobs

    # --- coloring --------------------------------------------------------------------------------------------------

    def _gather(self) -> int:
        """Wait until as many frames wait for their color as are colored together, or no more come; give that count."""
        at_once = self._engine.batch.settle(self._engine.loader.get())
        while len(self._preparing) < at_once and (self._looking or self._waiting_jobs):
            self._fill()
            if self._looking:
                self._decide(*self._looking.popleft())
            self._collect(all_of_them=False)
        return at_once

    def _color_next(self, at_once: int) -> None:
        """Color the frame at the head, together with those behind it that are as large."""
        batch: list[Ready] = []
        while self._preparing and len(batch) < at_once:
            look, preparing = self._preparing[0]
            try:
                ready = preparing.result()
            except (WeightsError, DeviceError):
                raise  # a network that finds masks or lines would fail on the other frames as well
            except Exception as error:
                self._preparing.popleft()
                if self._ties.chains is not None and self._ties.drawings is not None:
                    self._ties.drawings.give_up(look.job)
                self._fail(look.job, error, look.record)
                continue
            same_size = not batch or ready.prepared.canvas.size == batch[0].prepared.canvas.size
            if not same_size and not self._engine.batch.any_size:
                break
            batch.append(ready)
            self._preparing.popleft()
        if not batch:
            return
        # Frames that wait for this one know it by what was planned, which is not always what was made.
        for planned, (made, layer) in zip(batch, self._coloring.color(batch), strict=True):
            if isinstance(layer, Exception):
                self._fail(planned.look.job, layer, planned.look.record)
            else:
                self._finishing.append((planned.look, self._writing.submit(self._finisher.finish, made, layer)))

    # --- what became of a frame ------------------------------------------------------------------------------------

    def _repeat(self, look: Look, leader: FrameRecord) -> None:
        """Give a held drawing the picture of its leader, or the leader's failure."""
        if leader.status == "failed":
            record = look.record.model_copy(update={"error": leader.error, "held_from": leader.output})
            self._keep(record)
            return
        look = look.without_pixels()   # a slow disk must not fill the memory with drawings that are only copied
        self._finishing.append((look, self._writing.submit(self._finisher.copy, look, leader)))

    def _collect(self, all_of_them: bool) -> None:
        """Record frames that are written; wait for the oldest if too many are on their way."""
        while self._finishing:
            must_wait = all_of_them or len(self._finishing) > self._room
            if self._crew is not None:
                self._first_of_crew(self._crew, must_wait)
            look, finishing = self._finishing[0]
            if not (finishing.done() or must_wait):
                return
            self._settle(look, finishing)
            self._finishing.popleft()

    def _first_of_crew(self, crew: Crew, must_wait: bool) -> None:
        """Bring a frame that is done to the head: with many hands a slow frame must not hold up the others."""
        _tell_news(crew, self._account)
        waiting = [finishing for _, finishing in self._finishing] if must_wait else []
        while waiting and not wait(waiting, SECONDS_BETWEEN_NEWS, FIRST_COMPLETED).done:
            _tell_news(crew, self._account)
        for place, (_, finishing) in enumerate(self._finishing):
            if finishing.done():
                self._finishing.rotate(-place)
                return

    def _settle(self, look: Look, finishing: Future[FrameRecord]) -> None:
        """Record one frame that was finished, or failed to be. Raises OutputError, and what ended a crew."""
        try:
            record = finishing.result()
        except Exception as error:
            if isinstance(error, ColorcliError) and not isinstance(error, FrameError):
                raise
            self._fail(look.job, error, look.record)
            return
        if record.status == "failed":   # in the hands of a crew
            record = record.model_copy(update={"checks": _older_picture(look.job)})
            self._keep(record)
        else:
            self._tell(record)
        if _is_of_another_drawing(record, look.record):
            self._leaders.pop(look.record.fingerprint or "", None)
            for follower in self._followers.pop(look.record.fingerprint or "", []):
                self._look_again(follower.job)
            return
        self._release(record, look.record.fingerprint)

    def _release(self, record: FrameRecord, planned: str | None) -> None:
        """Let the held drawings go that waited for this one; they know it by the fingerprint it was to have."""
        if planned is None:
            return
        if self._leaders.get(planned) is None:
            self._leaders[planned] = record
        for follower in self._followers.pop(planned, []):
            self._repeat(follower, record)

    def _fail(self, job: FrameJob, error: Exception, record: FrameRecord | None = None) -> None:
        """Record a frame that cannot be colored, and go on."""
        record = record or self._looker.begun(job)
        update = {"status": "failed", "error": _failure_of(job, error), "checks": _older_picture(job)}
        record = record.model_copy(update=update)
        self._keep(record)
        self._release(record, record.fingerprint)

    def _keep(self, record: FrameRecord) -> FrameRecord:
        """Write a record into the journal, and tell it; gives it as it was written."""
        record = self._records.add(record)
        self._tell(record)
        return record

    def _tell(self, record: FrameRecord) -> None:
        """A frame is settled."""
        self._sharing.give_back(record.output)
        self._account.tell(record)


def send_home(crew: Crew, account: Account) -> None:
    """Stop what a crew still does for a shot, and tell what it has to say."""
    crew.stop()
    _tell_news(crew, account)


def _tell_news(crew: Crew, account: Account) -> None:
    for text in crew.news():
        account.warn(text)


def _failure_of(job: FrameJob, error: Exception) -> Failure:
    """Why a frame cannot be colored; what is no fault of the user's goes into the log as well."""
    if isinstance(error, ColorcliError):
        return Failure.of(error)
    log.error("%s failed", job.source, exc_info=error)
    memory = isinstance(error, MemoryError)
    reason = "memory is used up" if memory else f"{type(error).__name__}: {error}"
    return Failure(
        kind="device" if memory else "internal",
        message=f"{job.source.name}: {reason}",
        hint="color it on a machine with more memory" if memory else "this is a bug: please report it",
    )


def _is_of_another_drawing(made: FrameRecord, begun: FrameRecord) -> bool:
    """Whether somebody painted over a drawing before the one of a crew that colors it has read it."""
    read = made.pixels_sha256 is not None
    return read and (made.pixels_sha256, made.masks_sha256) != (begun.pixels_sha256, begun.masks_sha256)


def _older_picture(job: FrameJob) -> dict[str, float | bool | str]:
    """A check of a failed frame: its older picture is not taken away, but nobody shall take it for this drawing's."""
    return {"older_picture": True} if job.output.exists() else {}


def _missing_record(missing: MissingFrame) -> FrameRecord:
    return FrameRecord(
        frame=f"{missing.sequence}{missing.number}", number=missing.number, sequence=missing.sequence, status="missing"
    )
