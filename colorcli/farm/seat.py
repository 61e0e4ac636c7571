"""A worker on a cluster, as the one sees it who hands out the frames."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from colorcli.farm.orders import Ready
from colorcli.farm.task import Task

FRAMES_AT_FIRST = 4   # that a worker is counted for until it says how many it takes


@dataclass(eq=False)
class Seat:
    """A worker, and what it was given."""

    place: Hashable
    worker: Any
    asked: Any                                              # stands for its next answers
    seen: int = 0                                           # number of its last answer
    ready: Ready | None = None
    shot: int = -1                                          # of which it was told
    found: int = 0                                          # drawings of it that it was told of
    tasks: dict[tuple[int, str], Task] = field(default_factory=dict)
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

    def may_take(self, task: Task) -> bool:
        """Whether nothing is known that keeps it from coloring a frame."""
        return task.shot.number not in self.refused and self.place not in task.blind

    def drop(self) -> None:
        """Cancel what it was given and has not begun."""
        for task in self.tasks.values():
            task.future.cancel()
        self.tasks.clear()
