"""Handing frames out to the workers of a cluster as they get free, and again where a worker was lost.

All of it runs in one thread, the only one that speaks to the cluster. The thread that runs the shot puts frames into
the queue and has their futures; Ctrl-C there never lands in the middle of a call to the cluster.
"""

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from colorcli.errors import ColorcliError, DeviceError, FrameError
from colorcli.farm.cluster import Cluster, LostError
from colorcli.farm.orders import (
    CloseOrder,
    Done,
    Ended,
    EngineOrder,
    FrameOrder,
    Ready,
    Refused,
    Remark,
    StopOrder,
    Stopped,
)
from colorcli.farm.queue import Queue
from colorcli.farm.seat import Seat
from colorcli.farm.task import Task
from colorcli.farm.tidings import Tidings
from colorcli.farm.transfer import keep, read_files
from colorcli.presets import files_of
from colorcli.shot.engine import library_versions
from colorcli.shot.manifest import ModelEntry

MOST_ATTEMPTS = 3              # of a frame, each with a worker that was lost
MOST_LOSSES = 3                # of workers at one place, one after the other, of which none finished a frame
WRITERS = 2                    # threads that write what workers sent
SECONDS_A_TURN = 0.05
SECONDS_OF_A_TAKE = 2.0        # that a worker waits with an empty answer
SECONDS_TO_STOP = 30.0         # for the frames that are being colored when the run is stopped
SECONDS_TO_CLOSE = 10.0
SECONDS_TO_TIDY = 3.0
SECONDS_BETWEEN_LOOKS = 5.0    # for machines that have come
SECONDS_OF_SILENCE = 30.0      # before it is told that no worker is there yet
SECONDS_TO_START = 1200.0      # for the first worker

log = logging.getLogger(__name__)


class Dispatcher:
    """Starts workers and hands frames out to them, in a thread of its own."""

    def __init__(self, cluster: Cluster, order: EngineOrder, queue: Queue, tidings: Tidings, collect: bool) -> None:
        """order: the first one for each worker. collect: files are sent there and back."""
        self.lost: list[tuple[int, frozenset[str]]] = []      # processes, and the names of the frames that they had
        self._cluster, self._order, self._queue, self._tidings = cluster, order, queue, tidings
        self._collect = collect
        self._seats: list[Seat] = []
        self._losses: Counter[Hashable] = Counter()           # places -> losses without a finished frame in between
        self._given_up: set[Hashable] = set()                 # places
        self._last_error: ColorcliError | None = None         # of a worker
        self._refusals: dict[int, ColorcliError] = {}         # shot -> why a worker cannot color it
        self._stop = threading.Event()
        self._stopped = threading.Event()
        self._connected = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="keep")
        self._next_look = self._next_word = 0.0
        self._last_ready = 0.0
        self._stop_ends = 0.0

    # What follows is called by the thread that runs the shot.

    @property
    def seats(self) -> Sequence[Seat]:
        """The workers there are now."""
        return list(self._seats)

    @property
    def is_started(self) -> bool:
        """Whether there is a thread for the cluster."""
        return self._thread is not None

    @property
    def is_connected(self) -> bool:
        """Whether the cluster was opened."""
        return self._connected.is_set()

    def start(self, expected: tuple[ModelEntry, ...]) -> None:
        """Connect, and start the workers, without waiting. expected: the weights that they have to have."""
        self._order = replace(self._order, expected=expected)
        self._thread = threading.Thread(target=self._run, name="cluster", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Wait for the frames that are being colored, and cancel the others."""
        self._stopped.clear()
        self._stop.set()
        ends = time.monotonic() + SECONDS_TO_STOP + SECONDS_TO_CLOSE
        while self._thread is not None and self._thread.is_alive() and time.monotonic() < ends:
            if self._stopped.wait(SECONDS_A_TURN):
                break

    def close(self) -> None:
        """Send the workers home."""
        self._closing.set()
        if self._thread is not None and self._connected.is_set():   # else it may never come back from there
            self._thread.join(SECONDS_TO_CLOSE)
        self._writers.shutdown(wait=False, cancel_futures=True)

    def give_up(self, error: ColorcliError) -> None:
        """End all that is still to come with an error. From any thread."""
        waiting = self._queue.close(error)
        for seat in self.seats:
            waiting += seat.tasks.values()
            seat.tasks.clear()
        for task in waiting:
            task.fail(error)
        self._stopped.set()

    # What follows runs in the thread that speaks to the cluster.

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
            self.give_up(error)
        except BaseException as error:
            log.error("the cluster failed", exc_info=error)
            self.give_up(DeviceError(f"the cluster failed: {type(error).__name__}: {error}", hint="start it again"))

    def _turn(self) -> None:
        self._seat_workers()
        if self._stop.is_set():
            self._stop_all()
        else:
            self._queue.sort_incoming(len(self._seats))
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
                self._seats.append(Seat(place, worker, self._cluster.take(worker, 0, SECONDS_OF_A_TAKE)))
        if any(seat.ready for seat in self._seats):
            self._last_ready, self._next_word = now, now + SECONDS_OF_SILENCE
        elif now - self._last_ready > SECONDS_TO_START:
            raise DeviceError(
                f"no worker has started in {SECONDS_TO_START / 60:.0f} minutes",
                hint="is the cluster busy with other work? ask for fewer: --workers 1",
            )
        elif now > self._next_word:
            self._next_word = now + 2 * SECONDS_OF_SILENCE
            waited, starting = now - self._last_ready, len(self._seats)
            self._tidings.tell(f"no worker is ready yet after {waited:.0f} s; {starting} are starting")

    def _packed_order(self) -> EngineOrder:
        if self._collect and self._order.files is None:
            named = [Path(file) for file in files_of(self._order.preset).values()]
            self._order = replace(self._order, files=read_files(named))
        return self._order

    def _hand_out(self) -> None:
        """Give frames to workers that have room: those of their own block first, then of one that nobody has."""
        free = sorted((seat for seat in self._seats if seat.ready is not None), key=lambda seat: len(seat.tasks))
        given: dict[Seat, list[Task]] = {}
        for seat in free[: self._queue.suspects]:
            free.remove(seat)   # it gets nothing else until it is empty
            if not seat.tasks and (task := self._queue.next_suspect(seat)) is not None:
                given[seat] = [task]
                seat.tasks[task.name] = task
        for seat in free:
            while len(seat.tasks) < seat.depth and not any(task.alone for task in seat.tasks.values()):
                following = self._queue.next_for(seat)
                if following is None:
                    break
                given.setdefault(seat, []).append(following)
                seat.tasks[following.name] = following
        for seat, tasks in given.items():
            self._send(seat, tasks)

    def _send(self, seat: Seat, tasks: Sequence[Task]) -> None:
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
        kept = frozenset(str(path) for task in seat.tasks.values() for path in task.files) if self._collect else ()
        if tasks:
            seat.held = (seat.held & frozenset(kept)) | frozenset(files)
            jobs = tuple(task.job for task in tasks)
            self._cluster.order(seat.worker, FrameOrder(shot.number, jobs, found, files, frozenset(kept)))

    def _with_files(self, seat: Seat, tasks: Sequence[Task], files: dict[str, bytes]) -> list[Task]:
        """Read what a worker needs and does not have; give the tasks for which that can be read."""
        whole: list[Task] = []
        for task in tasks:
            wanted = [path for path in task.files if str(path) not in seat.held and str(path) not in files]
            own = (task.job.source, *task.job.masks)
            try:
                files |= read_files([path for path in wanted if path not in own], lenient=True)
                files |= read_files([path for path in wanted if path in own])
                whole.append(task)
            except FrameError as error:
                del seat.tasks[task.name]
                task.fail(error)
        return whole

    def _hear(self, seat: Seat) -> None:
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
                self._tidings.learn(f"{seat.place}", answer.described)
                self._compare(answer)
            elif isinstance(answer, Remark):
                self._remark(seat, answer)
            elif isinstance(answer, Refused):
                self._refuse(seat, answer)
            elif isinstance(answer, Stopped):
                seat.stopping = False
                seat.drop()
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
            self._tidings.tell(f"{ready.host} has {', '.join(other)}: its frames may differ in their last bits")

    def _finish(self, seat: Seat, done: Done) -> None:
        """Keep what a worker gave for a frame; if it could not even read it, another one shall try."""
        task = seat.tasks.pop((done.shot, done.record.source or ""), None)
        if task is None:
            return
        seat.finished += 1
        self._losses[seat.place] = 0
        self._tidings.count(seat.name)
        if done.record.status == "failed" and done.record.source_sha256 is None:
            task.blind.add(seat.place)
            if any(other.may_take(task) for other in self._seats):
                self._queue.again(task)
                return
        # Cancelled in the meantime: the picture is there, and the next run finds it without a record.
        if task.future.set_running_or_notify_cancel():
            self._writers.submit(keep, task, done)

    def _remark(self, seat: Seat, remark: Remark) -> None:
        """Tell a warning once, whoever has it; what is meant for the log goes there."""
        if remark.level > logging.WARNING:
            log.log(remark.level, "%s: %s", seat.name, remark.text)
        else:
            self._tidings.tell(remark.text)
            self._tidings.note(remark.text, once=True)

    def _refuse(self, seat: Seat, refused: Refused) -> None:
        """Keep a shot away from a worker that cannot color it; if none can, that is the end of the shot."""
        self._tidings.tell(refused.error.message)
        seat.refused.add(refused.shot)
        mine = [task for task in seat.tasks.values() if task.shot.number == refused.shot]
        for task in mine:
            del seat.tasks[task.name]
            self._queue.again(task)
        self._queue.disown(seat)
        self._refusals[refused.shot] = refused.error
        self._check_takers()

    def _check_takers(self) -> None:
        """Fail the frames of shots that no worker can color."""
        for shot, error in self._refusals.items():
            if self._seats and all(shot in seat.refused for seat in self._seats):
                for task in self._queue.take_back({shot}):
                    task.fail(error)

    def _lose(self, seat: Seat, reason: str) -> None:
        """A worker is gone: others color what it had, frame by frame, for one of them may have been the cause."""
        self._unseat(seat)
        self._losses[seat.place] += 1
        if self._losses[seat.place] >= MOST_LOSSES:
            self._given_up.add(seat.place)
        had = sorted(seat.tasks.values(), key=lambda task: task.shot.places[task.job.source.name])
        lost = f"; {len(had)} of its frames go to others" if had else ""
        self._tidings.tell(f"a worker on {seat.name} was lost ({reason}){lost}")
        self._tidings.note(f"a worker on {seat.name} was lost")
        self._remember(seat)
        for task in had:
            task.attempts += 1
            if task.attempts >= MOST_ATTEMPTS:
                task.fail(FrameError(
                    f"{task.job.source.name}: {task.attempts} workers were lost while they had it",
                    hint="color it on its own to see why; often there is too little memory for it",
                ))  # fmt: skip
            else:
                self._queue.again(task)
        self._require_some()

    def _remember(self, seat: Seat) -> None:
        """Keep in mind what a worker that was lost or killed may have left half written."""
        if seat.ready is not None:
            stems = frozenset(task.job.output.stem for task in seat.tasks.values())
            self.lost.append((seat.ready.pid, stems))

    def _dismiss(self, seat: Seat, error: ColorcliError) -> None:
        """A worker cannot go on; the others do."""
        self._unseat(seat)
        self._given_up.add(seat.place)
        self._last_error = error
        self._cluster.end(seat.worker)
        if self._seats:
            self._tidings.tell(f"a worker on {seat.name} cannot go on, the others do: {error.message}")
        self._tidings.note(f"a worker on {seat.name} could not go on: {error.message}")
        for task in seat.tasks.values():
            self._queue.again(task)
        self._require_some()

    def _unseat(self, seat: Seat) -> None:
        self._seats.remove(seat)
        self._queue.disown(seat)
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
        for task in self._queue.take_back():
            task.future.cancel()
        for seat in self._seats:
            if seat.tasks and not seat.stopping:
                seat.stopping = True
                self._cluster.order(seat.worker, StopOrder())
        self._stop_ends = self._stop_ends or time.monotonic() + SECONDS_TO_STOP
        if time.monotonic() > self._stop_ends:
            for seat in [seat for seat in self._seats if seat.tasks]:
                self._remember(seat)
                seat.drop()   # what it still does is lost, and so is what it could do next: it is behind
                self._unseat(seat)
                self._cluster.end(seat.worker)
        if not any(seat.tasks for seat in self._seats):
            self._stop_ends = 0.0
            self._stop.clear()
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
                try:
                    answers = self._cluster.answers(asked)
                except LostError:
                    tidying.remove(seat)
                    continue
                if any(isinstance(answer, Stopped) for _, answer in answers):
                    tidying.remove(seat)
                    continue
                seat.seen = max((number for number, _ in answers), default=seat.seen)
                seat.asked = self._cluster.take(seat.worker, seat.seen, SECONDS_OF_A_TAKE)
