"""Who colors what on a cluster: frames are handed out as workers get free, and again where a worker was lost.

The cluster is behind a small interface, and is only ever spoken to by one thread. The thread that runs the shot puts
frames in and gets futures; Ctrl-C there never lands in the middle of a call to the cluster.
"""

import contextlib
import hashlib
import logging
import os
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from colorcli.errors import ColorcliError, DeviceError, FrameError, OutputError
from colorcli.farm.worker import (
    Answer,
    CloseOrder,
    Done,
    Ended,
    EngineOrder,
    Files,
    FrameOrder,
    Order,
    Ready,
    Refused,
    Remark,
    ShotOrder,
    StopOrder,
    Stopped,
    files_of_preset,
    preset_with_paths,
    with_paths,
)
from colorcli.images import TEMPORARY
from colorcli.presets import Preset
from colorcli.shot.drawings import Drawings
from colorcli.shot.engine import Colorizer, Engine, library_versions
from colorcli.shot.manifest import FrameRecord, ModelEntry, Stamp, is_inside, output_error, write_atomically
from colorcli.shot.plan import FrameJob, ShotPlan, make_out_folder
from colorcli.shot.stamps import new_digest
from colorcli.variants import Variant

MOST_ATTEMPTS = 3              # of a frame, each with a worker that was lost
MOST_LOSSES = 3                # of workers at one place, one after the other, of which none finished a frame
FRAMES_AT_FIRST = 4            # that a worker is counted for until it says how many it takes
WRITERS = 2                    # threads that write what workers sent
SECONDS_A_TURN = 0.05
SECONDS_OF_A_TAKE = 2.0        # that a worker waits with an empty answer
SECONDS_TO_STOP = 30.0         # for the frames that are being colored when the run is stopped
SECONDS_TO_CLOSE = 10.0
SECONDS_TO_TIDY = 3.0
SECONDS_BETWEEN_LOOKS = 5.0    # for machines that have come
SECONDS_OF_SILENCE = 30.0      # before it is told that no worker is there yet
SECONDS_TO_OPEN = 180.0        # a cluster
SECONDS_TO_START = 1200.0      # for the first worker
NAMED_PLACES = 8               # in a line of the manifest

log = logging.getLogger(__name__)


class LostError(Exception):
    """A worker is gone: its process, its machine, or the way there."""


class Cluster(Protocol):
    """Machines on which workers run. Called from one thread, but for `settle`."""

    @property
    def most(self) -> int | None:
        """How many workers there may be; None: one at each place."""

    def open(self) -> None:
        """Connect. Raises ColorcliError."""

    def settle(self) -> None:
        """Set right what opening it has changed for the thread that runs the shot; called in that one."""

    def places(self) -> Sequence[Hashable]:
        """Where workers may be, best first. Raises ColorcliError if the cluster is gone."""

    def start(self, place: Hashable, order: EngineOrder) -> Any:
        """Start a worker, with its first order, without waiting for it."""

    def order(self, worker: Any, order: Order) -> None:
        """Give an order, after those before; that it gets there shows in the answers."""

    def take(self, worker: Any, seen: int, seconds: float) -> Any:
        """Ask for answers, see `Worker.take`; gives what stands for them."""

    def first(self, asked: Sequence[Any], seconds: float) -> Sequence[Any]:
        """Wait until some of what was asked is there, and give that."""

    def answers(self, asked: Any) -> Sequence[tuple[int, Answer]]:
        """The answers. Raises LostError."""

    def end(self, worker: Any) -> None:
        """Kill a worker."""

    def close(self) -> None:
        """Leave the cluster."""


@dataclass(frozen=True)
class _Shot:
    """What frames belong to."""

    number: int
    plan: ShotPlan                 # with absolute paths
    order: ShotOrder
    drawings: Drawings | None
    places: Mapping[str, int]      # source -> place in the shot
    stretch: int                   # frames of which one worker colors as many as it can; 1: they have nothing in common
    probe: Path | None


@dataclass(eq=False)
class _Task:
    """A frame to color."""

    shot: _Shot
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


@dataclass(eq=False)
class _Seat:
    """A worker, and what it was given."""

    place: Hashable
    worker: Any
    asked: Any                                              # stands for its next answers
    seen: int = 0                                           # number of its last answer
    ready: Ready | None = None
    shot: int = -1                                          # of which it was told
    found: int = 0                                          # drawings of it that it was told of
    tasks: dict[tuple[int, str], _Task] = field(default_factory=dict)
    held: frozenset[str] = frozenset()                      # files that lie there
    refused: set[int] = field(default_factory=set)          # shots that it cannot color
    finished: int = 0                                       # frames
    stopping: bool = False

    @property
    def depth(self) -> int:
        """How many frames it has at the same time: those it colors, as many read ahead, and one being written."""
        return FRAMES_AT_FIRST if self.ready is None else 2 * self.ready.together + 1

    @property
    def name(self) -> str:
        return self.ready.host if self.ready is not None else str(self.place)


class ClusterCrew:
    """Colors frames on a cluster. A `Crew`, and a context in which it works."""

    def __init__(
        self,
        cluster: Cluster,
        preset: Preset,
        load: Callable[[Preset], Colorizer],
        *,
        collect: bool = False,
        model: ModelEntry | None = None,
        variant: Variant | None = None,
        at_once: int | None = 1,
        device: str = "auto",
    ) -> None:
        """load: called by each worker with its own form of the preset; has to be something that can be sent there.

        collect: workers share no storage with this machine; drawings are sent there and pictures back. The others are
        those of `run_plans`.
        """
        self._cluster = cluster
        self._collect = collect
        self._preset = preset_with_paths(preset, _absolute)
        self._order = EngineOrder(self._preset, load, (), model, variant, at_once, device)
        self._lock = threading.Lock()
        self._incoming: deque[_Task] = deque()
        self._blocks: dict[Hashable, deque[_Task]] = {}       # in the order of the frames
        self._suspects: deque[_Task] = deque()
        self._owners: dict[Hashable, _Seat] = {}              # of blocks that are begun
        self._seats: list[_Seat] = []
        self._losses: Counter[Hashable] = Counter()           # places -> losses without a finished frame in between
        self._given_up: set[Hashable] = set()                 # places
        self._error: ColorcliError | None = None              # what ended it
        self._last_error: ColorcliError | None = None         # of a worker
        self._refusals: dict[int, ColorcliError] = {}         # shot -> why a worker cannot color it
        self._given: list[Future[FrameRecord]] = []           # of the shot
        self._lost: list[tuple[int, frozenset[str]]] = []     # in the shot: process, and the names of its frames
        self._shot: _Shot | None = None
        self._shots = 0
        self._news: deque[str] = deque()
        self._told: set[str] = set()
        self._counts: Counter[str] = Counter()                # name of a worker -> frames
        self._described: dict[str, Mapping[str, Any]] = {}
        self._notes: list[str] = []
        self._stop = threading.Event()
        self._stopped = threading.Event()
        self._connected = threading.Event()
        self._settled = False
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="keep")
        self._next_look = self._next_word = 0.0
        self._started = self._last_ready = 0.0
        self._stop_ends = 0.0

    def __enter__(self) -> "ClusterCrew":
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    @property
    def room(self) -> int:
        """So many that no worker waits, and that what has something in common stays together."""
        seats = list(self._seats)
        stretch = self._shot.stretch if self._shot is not None else 1
        return max(FRAMES_AT_FIRST, sum(seat.depth + stretch + 1 for seat in seats))

    @property
    def ready(self) -> int:
        """How many workers have loaded the model."""
        return sum(seat.ready is not None for seat in list(self._seats))

    def start(self, engine: Engine) -> None:
        """Connect, and start the workers, without waiting."""
        if self._thread is not None:
            return
        self._order = replace(self._order, expected=(engine.model, *engine.network_entries))
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="cluster", daemon=True)
        self._thread.start()

    def begin(self, plan: ShotPlan, settings: str, key: str, drawings: Drawings | None) -> None:
        """A shot begins."""
        self._shots += 1
        plan = with_paths(replace(plan, missing=(), problems=()), _absolute)
        probe = None if self._collect else _leave_probe(plan.out)
        order = ShotOrder(
            shot=self._shots,
            plan=plan,
            key=key,
            settings=settings,
            probe=None if probe is None else (probe.name, probe.read_text(encoding="utf-8")),
            files=_read(_files_of_shot(plan)) if self._collect else {},
        )
        places = {job.source.name: place for place, job in enumerate(plan.jobs)}
        warm_start, steady = self._preset.warm_start, self._preset.steady
        stretch = warm_start.every if warm_start.on else 2 * steady.reach if steady.on else 1
        self._given, self._lost = [], []
        self._shot = _Shot(self._shots, plan, order, drawings, places, stretch, probe)

    def color(
        self, job: FrameJob, needed: Sequence[FrameJob], keep: Callable[[FrameRecord], FrameRecord]
    ) -> "Future[FrameRecord]":
        """Give the record of a frame, once a worker has colored it."""
        assert self._shot is not None and self._thread is not None, "start and begin come first"
        future: Future[FrameRecord] = Future()
        job, *needed = with_paths((job, *needed), _absolute)
        task = _Task(self._shot, job, tuple(needed), keep, future)
        with self._lock:
            self._given.append(future)
            if self._error is not None:
                future.set_exception(self._error)
            else:
                self._incoming.append(task)
        return future

    def news(self) -> Sequence[str]:
        """What was not told yet."""
        self._settle()
        told: list[str] = []
        with contextlib.suppress(IndexError):
            while True:
                told.append(self._news.popleft())
        return told

    def describe(self) -> Mapping[str, Any]:
        """What the workers use, and how many frames each of them colored."""
        described = list(self._described.values())
        names = {name for one in described for name in one if name not in ("frames", "side_by_side")}
        joined = {
            name: ", ".join(dict.fromkeys(str(one[name]) for one in described if one.get(name) is not None))
            for name in sorted(names)
        }
        counts = [f"{name}: {count}" for name, count in sorted(self._counts.items())]
        more = [f"and {len(counts) - NAMED_PLACES} more"] if len(counts) > NAMED_PLACES else []
        frames = [f"frames by machine: {', '.join([*counts[:NAMED_PLACES], *more])}"] if counts else []
        return {**joined, "notes": (*frames, *self._notes)}

    def stop(self) -> None:
        """Wait for the frames that are being colored, and cancel the others; nothing is left of the shot then."""
        self._settle()
        if self._connected.is_set() and not all(future.done() for future in self._given):
            self._stopped.clear()
            self._stop.set()
            ends = time.monotonic() + SECONDS_TO_STOP + SECONDS_TO_CLOSE
            while self._thread is not None and self._thread.is_alive() and time.monotonic() < ends:
                if self._stopped.wait(SECONDS_A_TURN):
                    break
        for future in self._given:
            future.cancel()
        if self._shot is not None and self._shot.probe is not None:
            with contextlib.suppress(OSError):
                self._shot.probe.unlink(missing_ok=True)
            for pid, stems in self._lost:
                sweep_after(self._shot.plan.out, pid, stems)

    def close(self) -> None:
        """Send the workers home."""
        self._closing.set()
        if self._thread is not None and self._connected.is_set():   # else it may never come back from there
            self._thread.join(SECONDS_TO_CLOSE)
        self._writers.shutdown(wait=False, cancel_futures=True)

    def _settle(self) -> None:
        """What only the thread that runs the shot can do about a cluster that has opened, or does not open."""
        if self._connected.is_set() and not self._settled:
            self._settled = True
            self._cluster.settle()
        if self._thread is not None and not self._connected.is_set() and self._error is None:
            waited = time.monotonic() - self._started
            if waited > SECONDS_TO_OPEN:
                self._give_up(DeviceError(f"the cluster has not answered for {waited:.0f} s", hint="start it again"))
            elif waited > SECONDS_OF_SILENCE:
                self._tell(f"the cluster has not answered for {SECONDS_OF_SILENCE:.0f} s")

    # What follows runs in the thread that speaks to the cluster.

    def _block(self, shot: _Shot, job: FrameJob) -> Hashable:
        """What a frame has something in common with: where frames depend on those around them, a stretch of them."""
        if shot.stretch == 1 or job.number is None:
            return shot.number, job.source.name
        if self._preset.warm_start.on:
            return shot.number, job.sequence, job.number // shot.stretch
        # Also a short shot is shared out among all.
        fair = max(1, -(-len(shot.places) // max(1, 2 * len(self._seats))))
        return shot.number, shot.places[job.source.name] // min(shot.stretch, fair)

    def _run(self) -> None:
        try:
            try:
                self._cluster.open()
                self._last_ready = time.monotonic()
                self._next_word = self._last_ready + SECONDS_OF_SILENCE
                self._connected.set()
                while not self._closing.is_set():
                    self._turn()
            finally:
                self._leave()
        except ColorcliError as error:
            self._give_up(error)
        except BaseException as error:
            log.error("the cluster failed", exc_info=error)
            self._give_up(DeviceError(f"the cluster failed: {type(error).__name__}: {error}", hint="start it again"))

    def _turn(self) -> None:
        self._seat_workers()
        if self._stop.is_set():
            self._stop_all()
        else:
            self._sort_incoming()
            self._hand_out()
        asked = [seat.asked for seat in self._seats]
        if not asked:
            self._closing.wait(SECONDS_A_TURN)
        there = set(map(id, self._cluster.first(asked, SECONDS_A_TURN))) if asked else set()
        for seat in [seat for seat in self._seats if id(seat.asked) in there]:
            self._hear(seat)

    def _seat_workers(self) -> None:
        """Start workers where there are none, also on machines that have come later."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + SECONDS_BETWEEN_LOOKS
        taken = {seat.place for seat in self._seats} | self._given_up
        most = self._cluster.most
        for place in self._cluster.places():
            if place not in taken and (most is None or len(self._seats) < most):
                worker = self._cluster.start(place, self._packed_order())
                self._seats.append(_Seat(place, worker, self._cluster.take(worker, 0, SECONDS_OF_A_TAKE)))
        if any(seat.ready for seat in self._seats):
            self._last_ready, self._next_word = now, now + SECONDS_OF_SILENCE
        elif now - self._last_ready > SECONDS_TO_START:
            raise DeviceError(
                f"no worker has started in {SECONDS_TO_START / 60:.0f} minutes",
                hint="is the cluster busy with other work? ask for fewer: --workers 1",
            )
        elif now > self._next_word:
            self._next_word = now + 2 * SECONDS_OF_SILENCE
            self._tell(f"no worker is ready yet after {now - self._last_ready:.0f} s; {len(self._seats)} are starting")

    def _packed_order(self) -> EngineOrder:
        if self._collect and self._order.files is None:
            self._order = replace(self._order, files=_read(files_of_preset(self._preset)))
        return self._order

    def _sort_incoming(self) -> None:
        with self._lock:
            while self._incoming:
                task = self._incoming.popleft()
                task.block = self._block(task.shot, task.job)
                self._blocks.setdefault(task.block, deque()).append(task)

    def _hand_out(self) -> None:
        """Give frames to workers that have room: those of their own block first, then of one that nobody has."""
        free = sorted((seat for seat in self._seats if seat.ready is not None), key=lambda seat: len(seat.tasks))
        given: dict[int, list[_Task]] = {}
        for seat in free[: len(self._suspects)]:
            free.remove(seat)   # it gets nothing else until it is empty
            if not seat.tasks and (task := self._next_suspect(seat)) is not None:
                given[id(seat)] = [task]
                seat.tasks[task.name] = task
        for seat in free:
            while len(seat.tasks) < seat.depth and not any(task.alone for task in seat.tasks.values()):
                following = self._next_task(seat)
                if following is None:
                    break
                given.setdefault(id(seat), []).append(following)
                seat.tasks[following.name] = following
        for seat in list(self._seats):
            if id(seat) in given:
                self._send(seat, given[id(seat)])

    def _next_suspect(self, seat: _Seat) -> _Task | None:
        for task in self._suspects:
            if self._may(seat, task):
                self._suspects.remove(task)
                return task
        return None

    def _next_task(self, seat: _Seat) -> _Task | None:
        """The next frame for a worker; None: there is none for it."""
        mine = [block for block, owner in self._owners.items() if owner is seat and block in self._blocks]
        for block in [*mine, *(block for block in self._blocks if block not in self._owners)]:
            tasks = self._blocks[block]
            task = next((task for task in tasks if self._may(seat, task)), None)
            if task is None:
                continue
            tasks.remove(task)
            if task.shot.stretch > 1:
                self._owners[block] = seat
            if not tasks:
                del self._blocks[block]
            return task
        return None

    def _may(self, seat: _Seat, task: _Task) -> bool:
        return task.shot.number not in seat.refused and seat.place not in task.blind

    def _send(self, seat: _Seat, tasks: Sequence[_Task]) -> None:
        """Order a worker to color frames, of one shot."""
        shot = tasks[0].shot
        if seat.shot != shot.number:
            self._cluster.order(seat.worker, shot.order)
            seat.shot, seat.found, seat.held = shot.number, 0, frozenset()
        found = tuple(shot.drawings.found(seat.found)) if shot.drawings is not None else ()
        seat.found += len(found)
        files: dict[str, bytes] = {}
        if self._collect:
            tasks = self._with_files(seat, tasks, files)
        kept = frozenset(str(path) for task in seat.tasks.values() for path in _files_of(task)) if self._collect else ()
        if tasks:
            seat.held = (seat.held & frozenset(kept)) | frozenset(files)
            jobs = tuple(task.job for task in tasks)
            self._cluster.order(seat.worker, FrameOrder(shot.number, jobs, found, files, frozenset(kept)))

    def _with_files(self, seat: _Seat, tasks: Sequence[_Task], files: dict[str, bytes]) -> list[_Task]:
        """Read what a worker needs and does not have; give the tasks for which that can be read."""
        whole: list[_Task] = []
        for task in tasks:
            wanted = [path for path in _files_of(task) if str(path) not in seat.held and str(path) not in files]
            own = (task.job.source, *task.job.masks)
            try:
                files |= _read([path for path in wanted if path not in own], lenient=True)
                files |= _read([path for path in wanted if path in own])
                whole.append(task)
            except FrameError as error:
                del seat.tasks[task.name]
                _fail(task, error)
        return whole

    def _hear(self, seat: _Seat) -> None:
        """Act on what a worker answers."""
        try:
            answers = self._cluster.answers(seat.asked)
        except LostError as reason:
            self._lose(seat, str(reason))
            return
        for number, answer in answers:
            if number <= seat.seen:
                continue
            seat.seen = number
            if isinstance(answer, Done):
                self._finish(seat, answer)
            elif isinstance(answer, Ready):
                seat.ready = answer
                self._described[f"{seat.place}"] = answer.described
                self._compare(answer)
            elif isinstance(answer, Remark):
                self._remark(seat, answer)
            elif isinstance(answer, Refused):
                self._refuse(seat, answer)
            elif isinstance(answer, Stopped):
                seat.stopping = False
                self._drop(seat)
            elif isinstance(answer, Ended):
                self._dismiss(seat, answer.error)
                return
        seat.asked = self._cluster.take(seat.worker, seat.seen, SECONDS_OF_A_TAKE)

    def _compare(self, ready: Ready) -> None:
        """Tell of other versions of libraries that decide on pixels."""
        mine = library_versions()
        other = [
            f"{name} {version} (here {mine[name]})"
            for name, version in ready.versions.items()
            if name in mine and mine[name] != version
        ]
        if other:
            self._tell(f"{ready.host} has {', '.join(other)}: its frames may differ in their last bits")

    def _finish(self, seat: _Seat, done: Done) -> None:
        """Keep what a worker gave for a frame; if it could not even read it, another one shall try."""
        task = seat.tasks.pop((done.shot, done.record.source or ""), None)
        if task is None:
            return
        seat.finished += 1
        self._losses[seat.place] = 0
        self._counts[seat.name] += 1
        if done.record.status == "failed" and done.record.source_sha256 is None:
            task.blind.add(seat.place)
            if any(self._may(other, task) for other in self._seats):
                self._again(task)
                return
        # Cancelled in the meantime: the picture is there, and the next run finds it without a record.
        if task.future.set_running_or_notify_cancel():
            self._writers.submit(_keep, task, done)

    def _remark(self, seat: _Seat, remark: Remark) -> None:
        """Tell a warning once, whoever has it; what is meant for the log goes there."""
        if remark.level > logging.WARNING:
            log.log(remark.level, "%s: %s", seat.name, remark.text)
        else:
            self._tell(remark.text)
            if remark.text not in self._notes:
                self._notes.append(remark.text)

    def _refuse(self, seat: _Seat, refused: Refused) -> None:
        """Keep a shot away from a worker that cannot color it; if none can, that is the end of the shot."""
        self._tell(refused.error.message)
        seat.refused.add(refused.shot)
        mine = [task for task in seat.tasks.values() if task.shot.number == refused.shot]
        for task in mine:
            del seat.tasks[task.name]
            self._again(task)
        self._disown(seat)
        self._refusals[refused.shot] = refused.error
        self._check_takers()

    def _check_takers(self) -> None:
        """Fail the frames of shots that no worker can color."""
        for shot, error in self._refusals.items():
            if self._seats and all(shot in seat.refused for seat in self._seats):
                with self._lock:
                    waiting = [task for task in self._incoming if task.shot.number == shot]
                    self._incoming = deque(task for task in self._incoming if task.shot.number != shot)
                waiting += self._take_back({shot})
                for task in waiting:
                    _fail(task, error)

    def _take_back(self, shots: Collection[int]) -> list[_Task]:
        """Take the frames of these shots out of what is to be handed out."""
        kept: list[_Task] = []
        taken: list[_Task] = []
        for tasks in (*self._blocks.values(), self._suspects):
            for task in tasks:
                (taken if task.shot.number in shots else kept).append(task)
        self._blocks, self._suspects = {}, deque()
        for task in kept:
            if task.alone:
                self._suspects.append(task)
            else:
                self._blocks.setdefault(task.block, deque()).append(task)
        return taken

    def _again(self, task: _Task) -> None:
        """Hand a frame out once more, before the others."""
        if task.future.cancelled():
            return
        if task.alone:
            self._suspects.append(task)
        else:
            self._blocks = {task.block: self._blocks.pop(task.block, deque()), **self._blocks}
            self._blocks[task.block].appendleft(task)

    def _disown(self, seat: _Seat) -> None:
        self._owners = {block: owner for block, owner in self._owners.items() if owner is not seat}

    def _lose(self, seat: _Seat, reason: str) -> None:
        """A worker is gone: others color what it had, frame by frame, for one of them may have been the cause."""
        self._unseat(seat)
        self._losses[seat.place] += 1
        if self._losses[seat.place] >= MOST_LOSSES:
            self._given_up.add(seat.place)
        had = sorted(seat.tasks.values(), key=lambda task: task.shot.places[task.job.source.name])
        lost = f"; {len(had)} of its frames go to others" if had else ""
        self._tell(f"a worker on {seat.name} was lost ({reason}){lost}")
        self._notes.append(f"a worker on {seat.name} was lost")
        self._remember(seat)
        for task in had:
            task.attempts += 1
            if task.attempts >= MOST_ATTEMPTS:
                _fail(task, FrameError(
                    f"{task.job.source.name}: {task.attempts} workers were lost while they had it",
                    hint="color it on its own to see why; often there is too little memory for it",
                ))  # fmt: skip
            else:
                self._again(task)
        self._require_some()

    def _remember(self, seat: _Seat) -> None:
        """Keep in mind what a worker that was lost or killed may have left half written."""
        if seat.ready is not None:
            stems = frozenset(task.job.output.stem for task in seat.tasks.values())
            self._lost.append((seat.ready.pid, stems))

    def _dismiss(self, seat: _Seat, error: ColorcliError) -> None:
        """A worker cannot go on; the others do."""
        self._unseat(seat)
        self._given_up.add(seat.place)
        self._last_error = error
        self._cluster.end(seat.worker)
        if self._seats:
            self._tell(f"a worker on {seat.name} cannot go on, the others do: {error.message}")
        self._notes.append(f"a worker on {seat.name} could not go on: {error.message}")
        for task in seat.tasks.values():
            self._again(task)
        self._require_some()

    def _unseat(self, seat: _Seat) -> None:
        self._seats.remove(seat)
        self._disown(seat)
        self._next_look = 0.0

    def _require_some(self) -> None:
        """Raise what ended the last worker, if there is none and no place for one."""
        self._check_takers()
        if self._seats or any(place not in self._given_up for place in self._cluster.places()):
            return
        raise self._last_error or DeviceError(
            "every worker was lost", hint="what is finished stays; start the cluster again, and the same command"
        )

    def _stop_all(self) -> None:
        """Cancel what no worker has, and wait a while for those that color."""
        self._sort_incoming()
        for task in self._take_back(range(self._shots + 1)):
            task.future.cancel()
        for seat in self._seats:
            if seat.tasks and not seat.stopping:
                seat.stopping = True
                self._cluster.order(seat.worker, StopOrder())
        self._stop_ends = self._stop_ends or time.monotonic() + SECONDS_TO_STOP
        if time.monotonic() > self._stop_ends:
            for seat in [seat for seat in self._seats if seat.tasks]:
                self._remember(seat)
                self._drop(seat)   # what it still does is lost, and so is what it could do next: it is behind
                self._unseat(seat)
                self._cluster.end(seat.worker)
        if not any(seat.tasks for seat in self._seats):
            self._stop_ends = 0.0
            self._stop.clear()
            self._stopped.set()

    def _drop(self, seat: _Seat) -> None:
        """Cancel what a worker was given and has not begun."""
        for task in seat.tasks.values():
            task.future.cancel()
        seat.tasks.clear()

    def _give_up(self, error: ColorcliError) -> None:
        """End all that is still to come with an error."""
        with self._lock:
            self._error = self._error or error
            waiting = [*self._incoming, *(task for tasks in self._blocks.values() for task in tasks), *self._suspects]
            waiting += [task for seat in self._seats for task in seat.tasks.values()]
            self._incoming.clear()
            self._blocks.clear()
            self._suspects.clear()
            for seat in self._seats:
                seat.tasks.clear()
        for task in waiting:
            _fail(task, error)
        self._stopped.set()

    def _leave(self) -> None:
        """Send the workers home and leave the cluster; nothing that goes wrong there matters any more."""
        with contextlib.suppress(Exception):
            for seat in self._seats:
                self._cluster.order(seat.worker, CloseOrder())
            if self._collect:
                self._wait_for_tidying()
            for seat in self._seats:
                self._cluster.end(seat.worker)
        with contextlib.suppress(Exception):
            self._cluster.close()

    def _wait_for_tidying(self) -> None:
        """Let the workers take away what was sent to them; who does not answer leaves it to the next one there."""
        ends = time.monotonic() + SECONDS_TO_TIDY
        tidying = [seat for seat in self._seats if seat.ready is not None]
        while tidying and time.monotonic() < ends:
            for asked in self._cluster.first([seat.asked for seat in tidying], SECONDS_A_TURN):
                seat = next(seat for seat in tidying if seat.asked is asked)
                answers = [answer for _, answer in self._cluster.answers(asked)]
                if any(isinstance(answer, Stopped) for answer in answers):
                    tidying.remove(seat)
                else:
                    seat.asked = self._cluster.take(seat.worker, seat.seen + len(answers), SECONDS_OF_A_TAKE)

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._news.append(text)


def sweep_after(out: Path, pid: int, stems: Collection[str]) -> None:
    """Take away what a lost process left half written of its frames.

    Another machine may have a process of the same number, but none that writes these frames: they are claimed.
    """
    with contextlib.suppress(OSError):
        for path in [*out.glob(".*"), *out.glob("*/.*")]:
            left = TEMPORARY.fullmatch(path.name)
            of_its_frames = any(path.name.startswith(f".{stem}.") for stem in stems)
            if left is not None and int(left["pid"]) == pid and of_its_frames:
                path.unlink(missing_ok=True)


def _keep(task: _Task, done: Done) -> None:
    """Write what came back and keep the record; in a thread of its own, as disks are slow."""
    try:
        record = done.record if done.files is None else _written(task, done.record, done.files)
        task.future.set_result(record if record.status == "failed" else task.keep(record))
    except BaseException as error:
        task.future.set_exception(error)


def _written(task: _Task, record: FrameRecord, files: Files) -> FrameRecord:
    """Write the files of a frame, its picture last. Raises FrameError if one was damaged, OutputError."""
    digests = {**record.outputs, record.output or "": record.output_sha256}
    stamps: dict[str, Stamp] = {}
    for path, content in files.items():
        if not is_inside(path) or hashlib.sha256(content).hexdigest() != digests.get(path):
            raise FrameError(f"{path} was damaged on its way back", hint="run the same command again")
        target = task.job.output.parent / path
        make_out_folder(target.parent)
        write_atomically(target, content)
        try:
            _, stamp = new_digest(target)
        except OSError as error:
            raise output_error(target, error) from error
        stamps |= {} if stamp is None else {path: stamp}
    own = stamps.pop(record.output or "", None)
    return record.model_copy(update={"output_stamp": own, "outputs_stamps": stamps})


def _fail(task: _Task, error: ColorcliError) -> None:
    with contextlib.suppress(CancelledError):
        if task.future.set_running_or_notify_cancel():
            task.future.set_exception(error)


def _absolute(path: Path) -> Path:
    """A path that means the same in another folder; links and ".." stay as they are."""
    return path.absolute()


def _files_of_shot(plan: ShotPlan) -> list[Path]:
    """What all frames of a shot need."""
    found: list[Path] = []

    def seen(path: Path) -> Path:
        found.append(path)
        return path

    with_paths(replace(plan, jobs=(), sequences=(), request=replace(plan.request, shots=(), masks=(), out=None)), seen)
    return [path for path in dict.fromkeys(found) if path.is_file()]


def _files_of(task: _Task) -> list[Path]:
    """What one frame needs."""
    jobs = (task.job, *task.needed)
    return list(dict.fromkeys(path for job in jobs for path in (job.source, *job.masks)))


def _read(paths: Sequence[Path], lenient: bool = False) -> dict[str, bytes]:
    """The content of files, by path. Raises FrameError; lenient: what cannot be read is left out."""
    files: dict[str, bytes] = {}
    for path in paths:
        try:
            files[str(path)] = path.read_bytes()
        except OSError as error:
            if not lenient:
                raise FrameError(f"{path} cannot be read: {error.strerror}", hint="check the file") from error
    return files


def _leave_probe(out: Path) -> Path | None:
    """Leave a file in OUT by which another machine can tell that it sees the same folder. Raises OutputError."""
    probe = out / f".workers.{os.getpid()}-{secrets.token_hex(3)}.part"
    try:
        with probe.open("x", encoding="utf-8") as file:
            file.write(secrets.token_hex(16))
    except OSError as error:
        raise OutputError(f"{probe} cannot be written: {error.strerror}", hint="check the folder") from error
    return probe
