"""The frames that no worker has yet, and which of them goes to whom next."""

import threading
from collections import deque
from collections.abc import Collection, Hashable

from colorcli.errors import ColorcliError
from colorcli.farm.seat import Seat
from colorcli.farm.task import Task


class Queue:
    """Frames to hand out. Any thread puts them in; one hands them out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._error: ColorcliError | None = None
        self._incoming: deque[Task] = deque()
        self._blocks: dict[Hashable, deque[Task]] = {}   # in the order of the frames
        self._suspects: deque[Task] = deque()
        self._owners: dict[Hashable, Seat] = {}          # of blocks that are begun

    @property
    def error(self) -> ColorcliError | None:
        """Why nothing is handed out any more."""
        return self._error

    @property
    def suspects(self) -> int:
        """How many frames wait for a worker that they have for themselves."""
        return len(self._suspects)

    def put(self, task: Task) -> None:
        """Add a frame; it fails at once if nothing is handed out any more. From any thread."""
        with self._lock:
            if self._error is not None:
                task.future.set_exception(self._error)
            else:
                self._incoming.append(task)

    def close(self, error: ColorcliError) -> list[Task]:
        """Hand out nothing any more; gives what was left. From any thread."""
        with self._lock:
            self._error = self._error or error
            left = [*self._incoming, *(task for tasks in self._blocks.values() for task in tasks), *self._suspects]
            self._incoming.clear()
            self._blocks.clear()
            self._suspects.clear()
        return left

    def sort_incoming(self, workers: int) -> None:
        """Lay what has come to what it has something in common with. workers: among how many it is shared out."""
        with self._lock:
            while self._incoming:
                task = self._incoming.popleft()
                if task.future.cancelled():   # of a shot that has ended before anybody could color
                    continue
                task.block = task.shot.block_of(task.job, workers)
                self._blocks.setdefault(task.block, deque()).append(task)

    def next_suspect(self, seat: Seat) -> Task | None:
        """The next frame that a worker is to have for itself; None: there is none for it."""
        for task in self._suspects:
            if seat.may_take(task):
                self._suspects.remove(task)
                return task
        return None

    def next_for(self, seat: Seat) -> Task | None:
        """The next frame for a worker, of its own block before one that nobody has; None: there is none for it."""
        mine = [block for block, owner in self._owners.items() if owner is seat and block in self._blocks]
        for block in [*mine, *(block for block in self._blocks if block not in self._owners)]:
            tasks = self._blocks[block]
            task = next((task for task in tasks if seat.may_take(task)), None)
            if task is None:
                continue
            tasks.remove(task)
            if task.shot.stretch > 1:
                self._owners[block] = seat
            if not tasks:
                del self._blocks[block]
            return task
        return None

    def again(self, task: Task) -> None:
        """Hand a frame out once more, before the others."""
        if task.future.cancelled():
            return
        if task.alone:
            self._suspects.append(task)
        else:
            self._blocks = {task.block: self._blocks.pop(task.block, deque()), **self._blocks}
            self._blocks[task.block].appendleft(task)

    def disown(self, seat: Seat) -> None:
        """Let others have the blocks of a worker."""
        self._owners = {block: owner for block, owner in self._owners.items() if owner is not seat}

    def take_back(self, shots: Collection[int] | None = None) -> list[Task]:
        """Take out the frames of these shots; None: of all."""
        with self._lock:
            waiting = list(self._incoming)
            self._incoming.clear()
            taken = [task for task in waiting if shots is None or task.shot.number in shots]
            self._incoming += [task for task in waiting if not (shots is None or task.shot.number in shots)]
        kept: list[Task] = []
        for tasks in (*self._blocks.values(), self._suspects):
            for task in tasks:
                (taken if shots is None or task.shot.number in shots else kept).append(task)
        self._blocks, self._suspects = {}, deque()
        for task in kept:
            if task.alone:
                self._suspects.append(task)
            else:
                self._blocks.setdefault(task.block, deque()).append(task)
        return taken
