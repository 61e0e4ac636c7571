"""One shot on its way: read ahead and prepare | color | finish and write, overlapped; no finished frame is lost.

The calling thread colors, decides and keeps the journal; two small pools read and write around it. Every decision is
made in the order of the frames, and what a frame looks like depends on nothing but its own fingerprint.
"""

import contextlib
import itertools
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import colorcli
from colorcli.errors import ColorcliError, DeviceError, FrameError, KeyImageError, OutputError, WeightsError
from colorcli.finish.finish import finish_frame
from colorcli.finish.layers import layered_frame
from colorcli.finish.regions import without_swatch
from colorcli.images import Picture, format_named, picture_digest, read_picture, write_picture
from colorcli.model.machine import more_room, out_of_memory, too_large
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import PreparedKey, prepare_key
from colorcli.prepare.palette_file import hex_color
from colorcli.shot.drawings import Drawing, Drawings, RecordKey
from colorcli.shot.engine import (
    Colorizer,
    Engine,
    fingerprint,
    library_versions,
    recorded_settings,
    settings_digest,
)
from colorcli.shot.journal import Journal, JournalReader, is_torn, later_than, shorten
from colorcli.shot.keys import ShotKey, read_key, read_mask
from colorcli.shot.layer_files import (
    LAYERS_FOLDER,
    are_recorded,
    copy_layers,
    is_flattened,
    layer_files,
    with_earlier_layers,
    write_layers,
)
from colorcli.shot.leases import Leases, LeaseTimes, lease_name
from colorcli.shot.manifest import (
    THERE,
    Failure,
    FrameRecord,
    Manifest,
    ProblemEntry,
    RequestEntry,
    RunEntry,
    SettingsEntry,
    Stamp,
    Totals,
    journal_paths,
    merge_records,
    now,
    output_error,
    refuse_newer,
    relative_posix,
    update_manifest,
    write_atomically,
)
from colorcli.shot.plan import FrameJob, MissingFrame, ShotPlan, make_out_folder, outputs_there
from colorcli.shot.provenance import picture_notes
from colorcli.shot.stamps import FrameFiles, look_at, new_digest, stamped_digest
from colorcli.shot.steady import Neighbors, Poll
from colorcli.shot.warm import Chains, WarmStarter
from colorcli.variants import METHOD_VERSION

Float = NDArray[np.float32]

SECONDS_BETWEEN_NEWS = 0.5     # of a crew, while it is waited for
KEPT_REFERENCES = 4            # keys as the colorizer has read them, which lie on its device
LARGE_FRAME = 4_000_000        # pixels; of such frames fewer wait in memory
MOST_MISSING_RECORDS = 10_000  # --frames 1-1000000 of a shot with three frames is a slip, not a million records
JOURNAL_LEASE = "journal-"
LOOKS_IN_SILENCE = 4           # at frames in other hands, before it is told whose they are
STRETCH = 8                    # frame numbers that one process takes together where frames depend on those around them
SECONDS_TO_AGREE = 10.0        # that a process waits for another to write the manifest

log = logging.getLogger(__name__)


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


class Terminated(BaseException):
    """SIGTERM came: a farm wants its machine back."""


@dataclass(frozen=True)
class _Look:
    """A frame that was read, or found to be up to date."""

    job: FrameJob
    record: FrameRecord             # what is known of it so far
    picture: Picture | None = None  # None: up to date, a copy, or it cannot be read
    masks: tuple[Float, ...] = ()
    copy: bool = False              # the file of an earlier frame, byte for byte: it was not decoded again
    known: FrameRecord | None = None  # what was recorded of it when it was read


@dataclass(frozen=True)
class _Aside:
    """A frame that another process works on, or on its drawing."""

    job: FrameJob
    leases: tuple[str, ...]
    known: FrameRecord | None


@dataclass(frozen=True)
class _Ready:
    """A frame that waits for its color."""

    look: _Look
    prepared: PreparedFrame
    seconds: float


class ShotRun:
    """One shot on its way through the stages."""

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
        self._leases = Leases(plan.out, lease_times)
        self._journals = JournalReader(plan.out)
        self._crew = crew
        self.engine = engine
        self.reporter = reporter
        self.settings = settings_digest(engine.preset, engine.model, engine.network_entries)
        self.records: list[FrameRecord] = []
        self.started = now()
        self.clock = time.monotonic()
        self._done, self._total = done, total
        self._threads = threads
        large = max((job.size[0] * job.size[1] for job in plan.jobs if job.size), default=0) > LARGE_FRAME
        self._least_ahead = 1 if large else 2 * threads
        self._waiting_jobs = deque(plan.jobs)
        self._looking: deque[tuple[FrameJob, Future[_Look]]] = deque()
        self._preparing: deque[tuple[_Look, Future[_Ready]]] = deque()
        self._finishing: deque[tuple[_Look, Future[FrameRecord]]] = deque()
        self._leaders: dict[str, FrameRecord | None] = {}  # fingerprint -> its record; None: still on its way
        self._followers: dict[str, list[_Look]] = {}       # held drawings that wait for their leader
        self._places = {job.output: place for place, job in enumerate(plan.jobs)}
        self._decoded: dict[tuple[str, ...], FrameRecord] = {}  # file and masks -> the record of its first frame
        self._claims: dict[str, tuple[str, ...]] = {}           # output -> what this process has to itself for it
        self._aside: dict[str, _Aside] = {}                     # output -> a frame that is in other hands
        self._to_decode: set[str] = set()                       # outputs of frames that are looked at once more
        self._next_look_aside = 0.0
        self._known: dict[RecordKey, FrameRecord] = {}
        self._earlier: dict[str, FrameRecord] = {}     # fingerprint -> a record of a picture in OUT
        self._fresh: set[RecordKey] = set()            # frames that another process finished during this run
        self._looks_in_vain = 0
        self._told: set[str] = set()                            # who is waited for
        self._prepared_key: Future[PreparedKey] | None = None
        self._drawings: Drawings | None = None     # for frames that depend on others
        self._neighbors: Neighbors | None = None   # who has a say in a frame's colors; None: nobody
        self._poll: Poll | None = None
        self._chains: Chains | None = None   # what frames begin from; None: all from noise, or from a match
        self._warm: WarmStarter | None = None

    @property
    def _ahead(self) -> int:
        """How many frames wait in memory before and behind the color; a batch has to find all of its own there."""
        return max(self._least_ahead, self.engine.batch.frames)

    @property
    def _room(self) -> int:
        """How many frames are on their way behind the color, or with the crew."""
        return self._ahead if self._crew is None else self._crew.room

    def totals(self) -> Totals:
        """What became of the frames of this shot, in this run."""
        return Totals.of(self.records, time.monotonic() - self.clock)

    def failed(self) -> list[FrameRecord]:
        """The frames that failed, in order."""
        order = {job.output.name: place for place, job in enumerate(self.plan.jobs)}
        failed = [record for record in self.records if record.status == "failed"]
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
            self._load()
        exit_code: int = 1
        key: ShotKey | None = None
        path = self.plan.out / self._free_journal()
        shorten(path, len(self.plan.jobs))
        with Journal(path) as journal:
            self._journal = journal
            self._mend_journals()
            self._reading = ThreadPoolExecutor(self._threads, thread_name_prefix="read")
            self._writing = ThreadPoolExecutor(self._threads, thread_name_prefix="write")
            try:
                self._tell_problems()
                key = read_key(self.plan)
                self._go(key)
                exit_code = FrameError.exit_code if self.failed() else 0
            except ColorcliError as error:
                exit_code = error.exit_code
                raise
            except KeyboardInterrupt:
                exit_code = 130
                raise
            except Terminated:
                exit_code = 143
                raise
            finally:
                self._drain()
                failing = sys.exc_info()[0] is not None
                # A disk that is full for the frame is full for the manifest too: the first failure is the one to tell.
                with contextlib.suppress(*([OutputError] if failing else [])):
                    self._write_manifest(key, exit_code)

    def _free_journal(self) -> str:
        """The name of a journal that no other process writes."""
        usual = self.plan.journal_name
        for number in itertools.count(2):
            name = usual if number == 2 else f"{usual.removesuffix('.jsonl')}.process{number - 1}.jsonl"
            path = self.plan.out / name
            if path.exists() and not os.access(path, os.W_OK):
                continue   # another user's
            # Who was only silent for a while may still add a line.
            if self._leases.claim(_journal_lease(name), from_silent=False):
                self._leases.remember(_journal_lease(name))   # they shall read it also if it was written in a second
                return name
        raise AssertionError("there is always one more number")

    def _mend_journals(self) -> None:
        """Take away the torn last lines that killed processes left in theirs."""
        for path in journal_paths(self.plan.out):
            if is_torn(path) and path != self._journal.path:
                with self._alone(_journal_lease(path.name), patience=0) as alone:
                    if alone:
                        Journal(path).close()

    @contextlib.contextmanager
    def _alone(self, what: str, patience: float) -> Iterator[bool]:
        """Have something to oneself; False after that many seconds of waiting in vain."""
        ends = time.monotonic() + patience
        while not (alone := self._leases.claim(what, from_silent=False)) and time.monotonic() < ends:
            time.sleep(0.05)
        try:
            yield alone
        finally:
            if alone:
                self._leases.release(what)

    def _is_sure_to_color(self) -> bool:
        """Whether a look at names is enough to know that the model is needed."""
        there = frozenset() if self.plan.request.overwrite else outputs_there(self.plan)
        return any(job.size is not None and job.output.name not in there for job in self.plan.jobs)

    def _load(self) -> None:
        """Begin to load the model, without waiting."""
        if self._crew is None:
            self.engine.loader.start()
        else:
            self._crew.start(self.engine)

    def _tell_problems(self) -> None:
        for problem in self.plan.problems:
            if problem.severity == "warning":  # errors come again, as failed frames
                self.reporter.warning(problem.message)

    def _go(self, key: ShotKey) -> None:
        """Take every frame through the stages."""
        self._open(key)
        for missing in self.plan.missing[:MOST_MISSING_RECORDS]:
            self._keep(_missing_record(missing))
        self._take_through()

    def _open(self, key: ShotKey) -> None:
        """Get ready for the first frame."""
        self._key = key
        known = merge_records(self._journals.read(()))
        self._known = {record.key: record for record in known}
        self._earlier = {
            record.fingerprint: record
            for record in known
            if record.fingerprint and record.status in THERE and not self.plan.request.overwrite
        }
        warm_start, steady = self.engine.preset.warm_start, self.engine.preset.steady
        request = self.plan.request
        if warm_start.on or steady.on:
            self._drawings = Drawings(self._known, request.max_pixels, not request.thorough)
        if warm_start.on and self._drawings is not None:
            self._chains = Chains(self.settings, key.digest, warm_start.every, self._drawings)
            self._warm = WarmStarter(self._chains, self._drawings, self._lead)
        if steady.on and self._drawings is not None:
            self._neighbors = Neighbors(self.plan.sequences, self._drawings, steady.reach)
            self._poll = Poll(self._neighbors, self._drawings, self._lead, self._reading, 2 * steady.reach + 2)
        if self._crew is not None:
            self._crew.begin(self.plan, self.settings, key.digest, self._drawings)

    def _take_through(self) -> None:
        """Take the frames that wait through the stages."""
        while self._waiting_jobs or self._looking or self._preparing or self._finishing or self._aside:
            if self._aside and time.monotonic() >= self._next_look_aside:
                self._look_aside()
            self._fill()
            if self._preparing:
                self._color_next(self._gather())
            elif self._looking:
                self._decide(*self._looking.popleft())
            self._collect(all_of_them=not (self._waiting_jobs or self._looking or self._preparing))
            if self._aside and not (self._waiting_jobs or self._looking or self._preparing or self._finishing):
                self._wait()

    def _fill(self) -> None:
        """Keep reading and preparing ahead of the color."""
        while self._waiting_jobs or self._looking:
            while self._waiting_jobs and len(self._looking) < self._ahead:
                job = self._waiting_jobs.popleft()
                self._looking.append((job, self._reading.submit(self._look, job, job.output.name in self._to_decode)))
            if len(self._preparing) >= self._ahead or len(self._finishing) >= self._room:
                return
            if not self._looking[0][1].done():
                return
            self._decide(*self._looking.popleft())

    def _look(self, job: FrameJob, decode: bool) -> _Look:
        """Read a frame, unless its file, its settings and its result are as recorded. Runs in a reading thread.

        decode: also if its file is the same as that of an earlier frame.
        """
        clock = time.monotonic()
        record = self._begun(job)
        known, most = self._known.get(record.key), self.plan.request.max_pixels
        try:
            files = look_at(job, None if self.plan.request.thorough else known, most)
        except OSError as error:
            # read_picture knows the words for it.
            read_picture(job.source, most)
            raise FrameError(f"{job.source.name} cannot be read: {error.strerror}") from error
        source, masks = files.source, files.masks
        counts = known is not None and (not self.plan.request.overwrite or known.key in self._fresh)
        if known is not None and known.source_sha256 == source and counts:
            kept = self._up_to_date(known, job, files)
            if kept is not None:
                return _Look(job, kept)
        file = (source, *masks, job.source.suffix)
        copied = None if decode else self._copied(job, file, record.model_copy(update=files.recorded))
        if copied is not None:
            copied = copied.model_copy(update={"seconds": time.monotonic() - clock})
            return _Look(job, copied, copy=True, known=known)
        picture = read_picture(job.source, most)
        mask_pictures = files.mask_pictures
        if mask_pictures is None:
            mask_pictures = tuple(read_picture(path, most) for path in job.masks)
        _check_masks(job, picture, mask_pictures)
        pixels = picture_digest(picture)
        if self._drawings is not None:
            self._drawings.see(job, Drawing(pixels, masks, picture.size))
        file_format = format_named(self.engine.preset.output.format, picture.format)
        format_text = f"{file_format.container}/{file_format.depth}"
        record = record.model_copy(
            update={
                **self._depends(job),
                **files.recorded,
                "pixels_sha256": pixels,
                "format": format_text,
                "fingerprint": self._fingerprint(job, pixels, masks, format_text),
                "seconds": time.monotonic() - clock,
            }
        )
        # The file was saved again, but its picture is the same and so is the one that was made of it.
        if known is not None and known.fingerprint == record.fingerprint and counts:
            kept = self._up_to_date(known.model_copy(update={"source_sha256": source}), job, files)
            if kept is not None:
                return _Look(job, kept)
        self._decoded[file] = record
        return _Look(job, record, picture, tuple(read_mask(mask) for mask in mask_pictures), known=known)

    def _copied(self, job: FrameJob, file: tuple[str, ...], record: FrameRecord) -> FrameRecord | None:
        """The record of a frame whose file was decoded for an earlier one that is to look the same; None: decode it."""
        first = self._decoded.get(file)
        if first is None or self._places[job.output.with_name(first.output or "")] > self._places[job.output]:
            return None   # the earlier frame is decided first, and this one can only wait for such a one
        assert first.pixels_sha256 is not None and first.format is not None
        print_ = self._fingerprint(job, first.pixels_sha256, first.masks_sha256, first.format)
        same = ("pixels_sha256", "masks_sha256", "format", "before_sha256", "around_sha256", "fingerprint")
        found = record.model_copy(update={name: getattr(first, name) for name in same})
        return found if print_ == first.fingerprint else None

    def _begun(self, job: FrameJob) -> FrameRecord:
        """The record of a frame of which nothing is done yet."""
        return FrameRecord(
            frame=job.name,
            number=job.number,
            sequence=job.sequence,
            status="failed",
            source=job.source.name,
            output=job.output.name,
            tool=colorcli.__version__,
            settings_sha256=self.settings,
            key_sha256=self._key.digest,
            seed=self.engine.preset.sampling.seed,
        )

    def _up_to_date(self, known: FrameRecord, job: FrameJob, files: FrameFiles) -> FrameRecord | None:
        """The record to keep if the picture in OUT is the one that would be made now."""
        if known.status not in THERE or known.output != job.output.name or not known.pixels_sha256 or not known.format:
            return None
        wanted = self._fingerprint(job, known.pixels_sha256, files.masks, known.format)
        if known.fingerprint != wanted or known.output_sha256 is None:
            return None
        there = self._output(known)
        layers = self._layers_there(known)
        if there is None or there[0] != known.output_sha256 or layers is None:
            return None
        # Records of the first version did not say all of what they are of.
        said = {**files.recorded, "output_stamp": there[1], **layers, "key_sha256": self._key.digest}
        return known.model_copy(update={"status": "skipped", "chosen": "", **said, **self._depends(job)})

    def _fingerprint(self, job: FrameJob, pixels: str, masks: Sequence[str], file_format: str) -> str:
        return fingerprint(self.settings, self._key.digest, pixels, masks, file_format, *self._depends(job).values())

    def _depends(self, job: FrameJob) -> dict[str, str | None]:
        """The drawings beside its own that decide how a frame looks, for its record: the one before, those around."""
        return {
            "before_sha256": None if self._chains is None else self._chains.before(job),
            "around_sha256": None if self._neighbors is None else self._neighbors.digest(job),
        }

    def _lead(self, job: FrameJob) -> PreparedFrame:
        """Make a frame ready that others depend on, and that is not colored now itself. Raises FrameError."""
        most = self.plan.request.max_pixels
        picture, masks = read_picture(job.source, most), [read_picture(path, most) for path in job.masks]
        _check_masks(job, picture, masks)
        engine = self.engine
        given = [read_mask(mask) for mask in masks]
        return prepare_frame(picture, engine.preset, engine.variant, given, engine.networks)

    def _decide(self, job: FrameJob, looking: Future[_Look]) -> None:
        """Skip a frame, repeat a held drawing, or send it on to be prepared."""
        try:
            look = looking.result()
        except OutputError:
            raise
        except Exception as error:
            self._fail(job, error)
            return
        if look.picture is None and not look.copy:
            kept = self._keep(look.record)
            if kept.fingerprint:
                self._leaders.setdefault(kept.fingerprint, kept)
            return
        print_ = look.record.fingerprint
        assert print_ is not None
        leases = self._leases_for(job, print_)
        if not self._claim(job, leases):
            self._aside[job.output.name] = _Aside(job, leases, look.known)
            return
        self._hear()
        if self._known.get(look.record.key) is not look.known:
            self._look_again(job)   # another process has just finished it
            return
        if print_ in self._leaders:
            leader = self._leaders[print_]
            if leader is None:
                self._followers.setdefault(print_, []).append(_without_pixels(look))
            else:
                self._repeat(look, leader)
            return
        earlier = self._earlier.get(print_)
        if earlier is not None and earlier.output != job.output.name and self._is_whole(earlier):
            self._leaders[print_] = earlier
            self._repeat(look, earlier)
            return
        if look.picture is None and self._crew is None:
            self._look_again(job)   # the frame that it was to be a copy of is in other hands
            return
        self._leaders[print_] = None
        self._load()
        if self._crew is not None:
            future = self._crew.color(job, self._needed(job), partial(self._record_of_crew, look.record))
            self._finishing.append((_without_pixels(look), future))
            return
        if self._prepared_key is None:
            self._prepared_key = self._reading.submit(self._prepare_key)
        self._preparing.append((look, self._reading.submit(self._prepare, look)))

    def _record_of_crew(self, begun: FrameRecord, record: FrameRecord) -> FrameRecord:
        """Keep the record of a frame that was made elsewhere, with how this process knows the drawing again."""
        if (record.source_sha256, record.masks_sha256) == (begun.source_sha256, begun.masks_sha256):
            stamps = {"source_stamp": begun.source_stamp, "masks_stamps": begun.masks_stamps}
            record = record.model_copy(update=stamps)
        return self._record(record)

    def _leases_for(self, job: FrameJob, print_: str) -> tuple[str, ...]:
        """What a process needs to itself to make a frame: its drawing, wherever it is held.

        Where frames depend on others, also the stretch that it is in: two processes that took turns would both do what
        the frames of it have in common.
        """
        drawing = lease_name("drawing", print_)
        if self._drawings is None or job.number is None:
            return (drawing,)
        warm_start = self.engine.preset.warm_start
        stretch = job.number // (warm_start.every if warm_start.on else STRETCH)
        return lease_name("stretch", f"{stretch} {job.sequence}"), drawing

    def _claim(self, job: FrameJob, leases: Sequence[str]) -> bool:
        """Take a frame for this process, until it is told what became of it."""
        taken: list[str] = []
        for lease in leases:
            if not self._leases.claim(lease):
                for one in taken:
                    self._leases.release(one)
                return False
            taken.append(lease)
        self._claims[job.output.name] = tuple(taken)
        return True

    def _give_back(self, output: str | None) -> None:
        for lease in self._claims.pop(output or "", ()):
            self._leases.release(lease)

    def _look_again(self, job: FrameJob) -> None:
        self._give_back(job.output.name)
        self._to_decode.add(job.output.name)
        self._looking.appendleft((job, self._reading.submit(self._look, job, True)))

    def _hear(self) -> None:
        """Learn what other processes have recorded since the last time."""
        in_use = {lease.removeprefix(JOURNAL_LEASE) for lease in self._leases.last_seen(JOURNAL_LEASE)}
        for record in self._journals.read(in_use, self._journal.path.name):
            known = self._known.get(record.key)
            if known is not None and record.finished <= known.counts_from:
                continue
            self._known[record.key] = record
            made = record.status in THERE and (record.status != "skipped" or not self.plan.request.overwrite)
            if made:
                self._fresh.add(record.key)
            if made and record.fingerprint:
                self._earlier[record.fingerprint] = record

    def _look_aside(self) -> None:
        """Take up again the frames that no other process has any more, or has finished."""
        self._next_look_aside = time.monotonic() + self._leases.times.poll_seconds
        self._hear()
        taken = self._leases.taken({lease for aside in self._aside.values() for lease in aside.leases})
        for name, aside in list(self._aside.items()):
            job = aside.job
            known = self._known.get((job.sequence, job.number) if job.number is not None else ("", job.name))
            if known is not aside.known or not any(lease in taken for lease in aside.leases):
                del self._aside[name]
                self._to_decode.add(name)
                self._waiting_jobs.append(job)

    def _wait(self) -> None:
        """Wait for other processes: all that is left is in their hands."""
        self._look_aside()
        if self._waiting_jobs:
            self._looks_in_vain = 0
            return
        self._looks_in_vain += 1
        if self._looks_in_vain > LOOKS_IN_SILENCE:
            self._tell_who_is_waited_for()
        time.sleep(self._leases.times.poll_seconds)

    def _tell_who_is_waited_for(self) -> None:
        taken = self._leases.taken({lease for aside in self._aside.values() for lease in aside.leases})
        hands: dict[str, list[str]] = {}
        for aside in self._aside.values():
            for who in {taken[lease] for lease in aside.leases if lease in taken}:
                hands.setdefault(who, []).append(aside.job.name)
        for who in sorted(hands.keys() - self._told):
            self._told.add(who)
            self.reporter.warning(f"{who} is coloring {_some_of(hands[who])}: waiting for it")

    def _needed(self, job: FrameJob) -> list[FrameJob]:
        """The frames that one depends on."""
        leads = [] if self._chains is None else self._chains.leading_to(job)
        return leads + ([] if self._neighbors is None else self._neighbors.around(job))

    def _is_whole(self, record: FrameRecord) -> bool:
        """Whether the recorded picture is there and unchanged."""
        there = self._output(record)
        return there is not None and there[0] == record.output_sha256 and self._layers_there(record) is not None

    def _layers_there(self, record: FrameRecord) -> dict[str, Any] | None:
        """The stamps of the layers that are wanted beside a frame, for its record; None: not all are as recorded."""
        wanted = layer_files(record.output or "", self.engine.preset)
        if not are_recorded(wanted, record):
            return None
        stamps = dict(record.outputs_stamps)
        for path in (file.path for file in wanted):
            digest, stamp = record.outputs[path], stamps.pop(path, None)
            try:
                known = None if self.plan.request.thorough else digest
                found, stamp = stamped_digest(self.plan.out / path, known, stamp)
            except OSError:
                return None
            if found != digest:
                return None
            stamps |= {} if stamp is None else {path: stamp}
        return {"outputs_stamps": stamps}

    def _output(self, record: FrameRecord) -> tuple[str, Stamp | None] | None:
        """The hash and the stamp of the picture that a record tells of; None: there is none."""
        known = None if self.plan.request.thorough else record.output_sha256
        if record.output is None:
            return None
        try:
            return stamped_digest(self.plan.out / record.output, known, record.output_stamp)
        except OSError:
            return None

    def _prepare_key(self) -> PreparedKey:
        key, engine = self._key, self.engine
        return prepare_key(
            key.picture,
            engine.preset,
            engine.variant,
            key.masks,
            engine.networks,
            key.background,
            key.background_masks,
            key.swatches,
            key.each,
        )

    def _prepare(self, look: _Look) -> _Ready:
        """Runs in a reading thread."""
        clock = time.monotonic()
        assert look.picture is not None
        engine = self.engine
        prepared = prepare_frame(look.picture, engine.preset, engine.variant, look.masks, engine.networks)
        return _Ready(look, prepared, time.monotonic() - clock)

    def _gather(self) -> int:
        """Wait until as many frames wait for their color as are colored together, or no more come; give that count."""
        at_once = self.engine.batch.settle(self.engine.loader.get())
        while len(self._preparing) < at_once and (self._looking or self._waiting_jobs):
            self._fill()
            if self._looking:
                self._decide(*self._looking.popleft())
            self._collect(all_of_them=False)
        return at_once

    def _color_next(self, at_once: int) -> None:
        """Color the frame at the head, together with those behind it that are as large."""
        batch: list[_Ready] = []
        while self._preparing and len(batch) < at_once:
            look, preparing = self._preparing[0]
            try:
                ready = preparing.result()
            except (WeightsError, DeviceError):
                raise  # a network that finds masks or lines would fail on the other frames as well
            except Exception as error:
                self._preparing.popleft()
                if self._chains is not None and self._drawings is not None:
                    self._drawings.give_up(look.job)
                self._fail(look.job, error, look.record)
                continue
            same_size = not batch or ready.prepared.canvas.size == batch[0].prepared.canvas.size
            if not same_size and not self.engine.batch.any_size:
                break
            batch.append(ready)
            self._preparing.popleft()
        if batch:
            self._color(batch)

    def _color(self, batch: Sequence[_Ready]) -> None:
        """Color frames together; in halves where memory runs out, each on its own where one of them is at fault."""
        colorizer = self.engine.loader.get()
        reference = self._reference(colorizer)
        clock = time.monotonic()
        short = False
        made = batch
        try:
            if self._warm is not None:
                layers, made = self._color_warm(batch, self._warm, reference)
            elif self._poll is not None:
                layers = self._color_steadily(batch, self._poll, reference)
            else:
                layers = colorizer.color([ready.prepared for ready in batch], reference, self.engine.preset)
            assert len(layers) == len(batch), (len(layers), len(batch))
        except DeviceError:
            raise
        except Exception as error:
            short = out_of_memory(error)
            if len(batch) == 1 and short and not isinstance(error, MemoryError):
                canvas = batch[0].prepared.canvas
                used = colorizer.describe()
                raise too_large(
                    canvas.source, canvas.size, used.get("device", ""), used.get("memory", "full")
                ) from error
            if len(batch) == 1:
                self._fail(batch[0].look.job, error, batch[0].look.record)
                return
            layers = []
        # Behind the handler, where the failed attempt and its tensors are gone.
        if short:
            self._smaller_batch(len(batch))
        if not layers:
            rest = list(batch)
            while rest:
                few = self.engine.batch.frames if short else 1   # it may become less on the way
                self._color(rest[:few])
                del rest[:few]
            return
        seconds = (time.monotonic() - clock) / len(batch)
        for ready, done, layer in zip(batch, made, layers, strict=True):
            slim = replace(done, seconds=ready.seconds + seconds)
            self._finishing.append((ready.look, self._writing.submit(self._finish, slim, layer)))

    def _color_warm(
        self, batch: Sequence[_Ready], warm: WarmStarter, reference: Any
    ) -> tuple[Sequence[Float], Sequence[_Ready]]:
        """Color a frame from where the one before it ended; what it was begun from goes into its record."""
        (ready,) = batch
        job, record = ready.look.job, ready.look.record
        layer, before = warm.color(job, ready.prepared, self.engine.loader.get(), reference, self.engine.preset)
        assert record.pixels_sha256 is not None and record.format is not None
        print_ = fingerprint(
            self.settings, self._key.digest, record.pixels_sha256, record.masks_sha256, record.format, before
        )
        record = record.model_copy(update={"fingerprint": print_, "before_sha256": before})
        return [layer], [replace(ready, look=replace(ready.look, record=record))]

    def _color_steadily(self, batch: Sequence[_Ready], poll: Poll, reference: Any) -> Sequence[Float]:
        """Color frames with colors that the drawings around them have a say in."""
        colorizer, preset = self.engine.loader.get(), self.engine.preset
        frames = [ready.prepared for ready in batch]
        votes = poll.votes([(ready.look.job, ready.prepared) for ready in batch], colorizer, reference, preset)
        return colorizer.color(frames, reference, preset, votes)

    def _smaller_batch(self, tried: int) -> None:
        """Color fewer frames together for the rest of the run; said once."""
        batch = self.engine.batch
        first = not batch.notes
        if tried // 2 < batch.frames:
            batch.halve(tried)
        if first:
            self.reporter.warning(f"there is no memory for {tried} frames at once; going on with {batch.frames}")

    def _reference(self, colorizer: Colorizer) -> Any:
        """What the colorizer makes of the key: once for each key of a run."""
        references = self.engine.references
        if self._key.digest not in references:
            assert self._prepared_key is not None
            while len(references) >= KEPT_REFERENCES:
                del references[next(iter(references))]
            try:
                key = self._prepared_key.result()
                references[self._key.digest] = colorizer.encode_reference(key, self.engine.preset)
                self._tell_colors_without_swatch(key)
            except FrameError as error:
                raise KeyImageError(f"the key cannot be used: {error.message}", hint=error.hint) from error
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                used = colorizer.describe()
                hint = more_room(used.get("device", ""), used.get("memory", "full"))
                raise DeviceError("there is no memory to read the key", hint=hint) from error
        return references[self._key.digest]

    def _tell_colors_without_swatch(self, key: PreparedKey) -> None:
        """Warn of colors that stay the key's own because the production's palette has none like them."""
        settings = self.engine.preset.finish
        if key.swatches is None or self.plan.palette_file is None:
            return
        alone = without_swatch(key.palette.colors, key.swatches, settings.palette_reach)
        if alone:
            named = ", ".join(hex_color(color) for color in key.palette.colors[alone[:6]])
            self.reporter.warning(
                f"{self.plan.palette_file.name} has nothing within {settings.palette_reach:g} CIEDE2000 of "
                f"{len(alone)} of the key's {len(key.palette.colors)} colors, which stay: {named}"
                + (", ..." if len(alone) > 6 else "")
            )

    def _finish(self, ready: _Ready, layer: Float) -> FrameRecord:
        """Lay the lines over the color and write the frame. Runs in a writing thread. Raises OutputError."""
        clock = time.monotonic()
        look, prepared, preset = ready.look, ready.prepared, self.engine.preset
        assert self._prepared_key is not None and look.picture is not None
        key, file_format = self._prepared_key.result(), format_named(preset.output.format, look.picture.format)
        notes = picture_notes((self.engine.model, *self.engine.network_entries), look.record.fingerprint)
        files = layer_files(look.job.output.name, preset)
        if files:
            layered = layered_frame(layer, prepared, key, preset, is_flattened(file_format))
            write_layers(self.plan.out, files, layered, file_format, notes)
            color, alpha = layered.color, layered.alpha
        else:
            color, alpha = finish_frame(layer, prepared, key, preset)
        write_picture(look.job.output, color, alpha, file_format, notes)
        digest, stamp = new_digest(look.job.output)
        seconds = (look.record.seconds or 0.0) + ready.seconds + time.monotonic() - clock
        record = look.record.model_copy(
            update={
                "status": "written",
                "output_sha256": digest,
                "output_stamp": stamp,
                **self._layers_made(look.job),
                "seconds": round(seconds, 3),
                "checks": _checks(prepared),
            }
        )
        # Here, and not when the calling thread has time: it may be coloring for a minute, and be killed meanwhile.
        return self._record(record)

    def _layers_made(self, job: FrameJob) -> dict[str, Any]:
        """What the record says of the layers that have just been written. Raises OutputError."""
        files = layer_files(job.output.name, self.engine.preset)
        try:
            made = {file.path: new_digest(self.plan.out / file.path) for file in files}
        except OSError as error:
            raise output_error(self.plan.out / LAYERS_FOLDER, error) from error
        return {
            "outputs": {path: digest for path, (digest, _) in made.items()},
            "outputs_stamps": {path: stamp for path, (_, stamp) in made.items() if stamp is not None},
            "layers": {file.path: file.names for file in files},
        }

    def _repeat(self, look: _Look, leader: FrameRecord) -> None:
        """Give a held drawing the picture of its leader, or the leader's failure."""
        if leader.status == "failed":
            record = look.record.model_copy(update={"error": leader.error, "held_from": leader.output})
            self._keep(record)
            return
        look = _without_pixels(look)   # a slow disk must not fill the memory with drawings that are only copied
        self._finishing.append((look, self._writing.submit(self._copy, look, leader)))

    def _copy(self, look: _Look, leader: FrameRecord) -> FrameRecord:
        """Runs in a writing thread. Raises OutputError."""
        clock = time.monotonic()
        assert leader.output is not None
        source = self.plan.out / leader.output
        try:
            data = source.read_bytes()
        except OSError as error:
            raise output_error(source, error) from error
        copy_layers(self.plan.out, leader.output, look.job.output.name, self.engine.preset)
        write_atomically(look.job.output, data)
        digest, stamp = new_digest(look.job.output)
        record = look.record.model_copy(
            update={
                "status": "held",
                "held_from": leader.held_from or leader.output,
                # Of what was made, which is not what was planned after a failure.
                **{name: getattr(leader, name) for name in ("fingerprint", "before_sha256", "around_sha256")},
                "output_sha256": digest,
                "output_stamp": stamp,
                **self._layers_made(look.job),
                "seconds": round((look.record.seconds or 0.0) + time.monotonic() - clock, 3),
                "checks": leader.checks,
            }
        )
        return self._record(record)

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
        self._tell_news(crew)
        waiting = [finishing for _, finishing in self._finishing] if must_wait else []
        while waiting and not wait(waiting, SECONDS_BETWEEN_NEWS, FIRST_COMPLETED).done:
            self._tell_news(crew)
        for place, (_, finishing) in enumerate(self._finishing):
            if finishing.done():
                self._finishing.rotate(-place)
                return

    def _tell_news(self, crew: Crew) -> None:
        for text in crew.news():
            self.reporter.warning(text)

    def _settle(self, look: _Look, finishing: Future[FrameRecord]) -> None:
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
        if isinstance(error, ColorcliError):
            failure = Failure.of(error)
        else:
            log.error("%s failed", job.source, exc_info=error)
            memory = isinstance(error, MemoryError)
            reason = "memory is used up" if memory else f"{type(error).__name__}: {error}"
            failure = Failure(
                kind="device" if memory else "internal",
                message=f"{job.source.name}: {reason}",
                hint="color it on a machine with more memory" if memory else "this is a bug: please report it",
            )
        record = record or self._begun(job)
        update = {"status": "failed", "error": failure, "checks": _older_picture(job)}
        record = record.model_copy(update=update)
        self._keep(record)
        self._release(record, record.fingerprint)

    def _keep(self, record: FrameRecord) -> FrameRecord:
        """Write a record into the journal, and tell it; gives it as it was written."""
        record = self._record(record)
        self._tell(record)
        return record

    def _record(self, record: FrameRecord) -> FrameRecord:
        """Write a record into the journal, with the time; any thread may. Raises OutputError."""
        known = self._known.get(record.key)
        # A journal does not grow with every run that finds nothing changed.
        if known is not None and record.status in ("skipped", "missing") and _says_the_same(record, known):
            return known
        if known is not None and record.status in ("written", "held"):
            record = with_earlier_layers(self.plan.out, known, record)
        # The newest record counts, and it may be that of a machine whose clock is an hour ahead.
        record = record.model_copy(update={"finished": later_than(known.counts_from if known else "")})
        self._journal.add(record)
        return record

    def _tell(self, record: FrameRecord) -> None:
        """Count a record and tell the reporter."""
        self.records.append(record)
        self._give_back(record.output)
        if record.status != "missing":
            self._done += 1
            self.reporter.frame(record, self._done, self._total)

    def _drain(self) -> None:
        """After an early end: record what the writing threads still finish, drop what was not colored."""
        self._reading.shutdown(wait=False, cancel_futures=True)
        self._followers.clear()
        if self._crew is not None:
            self._crew.stop()
            self._tell_news(self._crew)
        recorded = {record.output for record in self.records}
        for look, finishing in self._finishing:
            # Ctrl-C may have come between the record and the queue.
            if look.job.output.name not in recorded and not finishing.cancelled():
                with contextlib.suppress(ColorcliError):
                    self._settle(look, finishing)
        self._finishing.clear()
        self._writing.shutdown(wait=True, cancel_futures=True)

    def _write_manifest(self, key: ShotKey | None, exit_code: int) -> None:
        plan, engine = self.plan, self.engine
        colorizer = engine.loader.loaded
        described = dict(colorizer.describe()) if colorizer is not None else {}
        described = dict(self._crew.describe()) if self._crew is not None else described
        run = RunEntry(
            journal=self._journal.path.name,
            started=self.started,
            finished=now(),
            exit_code=exit_code,
            frames=plan.range.text if plan.range is not None else "",
            chunk=str(plan.chunk) if plan.chunk is not None else None,
            device=described.get("device"),
            attention=described.get("attention"),
            engine=described.get("engine"),
            precision=described.get("precision"),
            memory=described.get("memory"),
            compiled=described.get("compiled"),
            decoding=described.get("decoding"),
            batch=engine.batch.frames if colorizer is not None else None,
            notes=(*engine.batch.notes, *described.get("notes", ())),
            versions=library_versions(),
            totals=self.totals(),
        )
        request = plan.request

        def build(old: Manifest | None, records: list[FrameRecord]) -> Manifest:
            if plan.range is None and plan.chunk is None:
                # This process has seen the whole shot: records of drawings that were taken out since do not count.
                there = {record.key for record in self.records} | {
                    (job.sequence, job.number) if job.number is not None else ("", job.name) for job in plan.jobs
                }
                records = [record for record in records if record.key in there]
            runs = {entry.journal: entry for entry in (old.runs if old else ())} | {run.journal: run}
            used = {record.settings_sha256 for record in records}
            return Manifest(
                tool=colorcli.__version__,
                created=old.created if old and old.created else self.started,
                updated=later_than(max((record.finished for record in records), default="")),
                shot=relative_posix(plan.folder, plan.out),
                name=plan.name,
                folder=plan.out.resolve().name,
                request=RequestEntry(
                    shots=_named_in(plan),
                    refs=tuple(relative_posix(path, plan.out) for path in plan.keys),
                    frames=request.frames,
                    chunk=request.chunk,
                    masks=tuple(relative_posix(path, plan.out) for path in request.masks),
                    overwrite=request.overwrite,
                    preset=request.preset_name,
                ),
                settings=recorded_settings(engine.preset, plan.out),
                settings_sha256=self.settings,
                method=METHOD_VERSION,
                models=(engine.model, *engine.network_entries),
                earlier_settings={
                    digest: entry
                    for digest, entry in (_settings_of(old) if old else {}).items()
                    if digest in used and digest != self.settings
                },
                keys=key.entries if key else old.keys if old else (),
                key_sha256=key.digest if key else old.key_sha256 if old else "",
                background=key.background_entry if key else old.background if old else None,
                palette=key.palette_entry if key else old.palette if old else None,
                totals=Totals.of(records, time.monotonic() - self.clock),
                runs=tuple(runs.values()),
                problems=tuple(
                    ProblemEntry(severity=one.severity, kind=one.kind, message=one.message, hint=one.hint)
                    for one in plan.problems
                ),
            )

        with self._alone("manifest", SECONDS_TO_AGREE):
            update_manifest(plan.out, build)


def _settings_of(manifest: Manifest) -> dict[str, SettingsEntry]:
    """By what the frames of a manifest were colored, by digest."""
    last = SettingsEntry(
        tool=manifest.tool, method=manifest.method, settings=manifest.settings, models=manifest.models
    )
    return manifest.earlier_settings | ({manifest.settings_sha256: last} if manifest.settings_sha256 else {})


def _named_in(plan: ShotPlan) -> tuple[str, ...]:
    """The sequences and pictures of the shot's folder that were named by themselves; none: the folder was."""
    paths = [Path(text) for text in plan.request.shots]
    folder = plan.folder.resolve()
    return tuple(path.name for path in paths if not path.is_dir() and path.parent.resolve() == folder)


def _without_pixels(look: _Look) -> _Look:
    """The same without its picture: a held drawing that waits needs only its names."""
    return replace(look, picture=None, masks=())


def _check_masks(job: FrameJob, picture: Picture, masks: Sequence[Picture]) -> None:
    """Raise FrameError if a mask is not as large as its frame."""
    for path, mask in zip(job.masks, masks, strict=True):
        if mask.size != picture.size:
            raise FrameError(
                f"the mask {path} is {mask.size[0]}x{mask.size[1]}, "
                f"but {job.source.name} is {picture.size[0]}x{picture.size[1]}",
                hint="make the mask as large as the frame, or take it out of the folder",
            )


def _is_of_another_drawing(made: FrameRecord, begun: FrameRecord) -> bool:
    """Whether somebody painted over a drawing before the one of a crew that colors it has read it."""
    read = made.pixels_sha256 is not None
    return read and (made.pixels_sha256, made.masks_sha256) != (begun.pixels_sha256, begun.masks_sha256)


def _older_picture(job: FrameJob) -> dict[str, float | bool | str]:
    """A check of a failed frame: its older picture is not taken away, but nobody shall take it for this drawing's."""
    return {"older_picture": True} if job.output.exists() else {}


def _says_the_same(record: FrameRecord, known: FrameRecord) -> bool:
    return record.model_copy(update={"finished": known.finished}) == known


def _missing_record(missing: MissingFrame) -> FrameRecord:
    return FrameRecord(
        frame=f"{missing.sequence}{missing.number}", number=missing.number, sequence=missing.sequence, status="missing"
    )


def _checks(prepared: PreparedFrame) -> dict[str, float | bool | str]:
    """What a person would want to know of a frame without opening it."""
    ink = float(prepared.lines.ink.mean())
    return {
        "ink": round(ink, 5),                                # share of the frame that is line
        "character": round(float(prepared.mask.mean()), 5),  # share of the frame that is character
        "blank": ink == 0.0,
    }



def _some_of(names: Sequence[str]) -> str:
    """A list of frames in words: walk.0003, walk.0004 and 12 more."""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


def _journal_lease(name: str) -> str:
    return f"{JOURNAL_LEASE}{name}"
