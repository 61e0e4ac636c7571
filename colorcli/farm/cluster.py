"""What machines on which workers run must be able to do, to whoever hands out the frames."""

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from colorcli.farm.orders import Answer, EngineOrder, Order


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
