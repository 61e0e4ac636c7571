"""A cluster whose workers are threads of this process: what goes wrong on real ones happens when a test says so."""

import pickle
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from colorcli.errors import ColorcliError
from colorcli.farm.cluster import LostError
from colorcli.farm.crew import ClusterCrew
from colorcli.farm.orders import Answer, CloseOrder, Done, EngineOrder, Order
from colorcli.farm.worker import VERSION, Worker
from colorcli.presets import Preset
from colorcli.shot.engine import Colorizer
from colorcli.shot.manifest import ModelEntry
from colorcli.shot.plan import ShotRequest, plan_shots
from colorcli.shot.run import run_plans
from tests.shot.studio import MODEL, FakeColorizer, Listener, Outcome


@dataclass(eq=False)
class Thread:
    """A worker, and whether it is lost."""

    place: str
    worker: Worker
    lost: threading.Event = field(default_factory=threading.Event)
    orders: int = 0
    finished: int = 0

    def send(self, order: Order) -> None:
        """Orders arrive in order here."""
        self.worker.order(self.orders, order)
        self.orders += 1


class Threads:
    """A cluster of as many places; a `Cluster`."""

    def __init__(
        self,
        places: int = 2,
        *,
        most: int | None = None,
        changed: Callable[[str, Order], Order] = lambda place, order: order,
        heard: Callable[["Threads", Thread, Answer], None] = lambda cluster, thread, answer: None,
        error: ColorcliError | None = None,
        version: str = VERSION,
    ) -> None:
        """changed: what becomes of an order on its way. heard: is told each answer before the crew is.

        error: of opening it.
        """
        self.most = most
        self.names = [f"node{number}" for number in range(places)]
        self.threads: list[Thread] = []   # all that were ever started
        self.opened = self.closed = 0
        self._changed, self._heard, self._error, self._version = changed, heard, error, version
        self._takers = ThreadPoolExecutor(32)

    def open(self) -> None:
        self.opened += 1
        if self._error is not None:
            raise self._error

    def settle(self) -> None:
        assert threading.current_thread() is threading.main_thread()

    def places(self) -> Sequence[Hashable]:
        return list(self.names)

    def start(self, place: Any, order: EngineOrder) -> Thread:
        thread = Thread(place, Worker(self._version))
        self.threads.append(thread)
        thread.send(self._changed(place, order))
        return thread

    def order(self, worker: Thread, order: Order) -> None:
        if not worker.lost.is_set():
            sent: Order = pickle.loads(pickle.dumps(self._changed(worker.place, order)))
            worker.send(sent)

    def take(self, worker: Thread, seen: int, seconds: float) -> "tuple[Thread, Future[Any]]":
        # A worker that is lost answers nothing, not even what it had ready.
        return worker, self._takers.submit(worker.worker.take, seen, min(seconds, 0.05))

    def first(self, asked: Sequence[Any], seconds: float) -> Sequence[Any]:
        done, _ = wait([future for _, future in asked], seconds, FIRST_COMPLETED)
        return [one for one in asked if one[1] in done]

    def answers(self, asked: Any) -> Sequence[tuple[int, Answer]]:
        thread, future = asked
        answers: Sequence[tuple[int, Answer]] = pickle.loads(pickle.dumps(future.result()))
        heard: list[tuple[int, Answer]] = []
        for number, answer in answers:
            self._heard(self, thread, answer)
            if thread.lost.is_set():
                raise LostError("somebody pulled the plug")
            thread.finished += isinstance(answer, Done)
            heard.append((number, answer))
        if thread.lost.is_set():
            raise LostError("somebody pulled the plug")
        return heard

    def end(self, worker: Thread) -> None:
        worker.lost.set()
        worker.send(CloseOrder())

    def close(self) -> None:
        self.closed += 1
        for thread in self.threads:
            thread.send(CloseOrder())
        self._takers.shutdown(wait=False)

    def lose(self, thread: Thread, forever: bool = False) -> None:
        """Let a worker be lost; forever: with its machine."""
        thread.lost.set()
        if forever and thread.place in self.names:
            self.names.remove(thread.place)


@dataclass
class Studio:
    """What all workers color with, counted together."""

    colorizers: list[FakeColorizer] = field(default_factory=list)
    make: Callable[[], FakeColorizer] = FakeColorizer

    def load(self, preset: Preset) -> Colorizer:
        self.colorizers.append(self.make())
        return self.colorizers[-1]

    @property
    def colored(self) -> int:
        return sum(one.colored for one in self.colorizers)

    @property
    def encoded(self) -> int:
        return sum(one.encoded for one in self.colorizers)


def color_on(
    cluster: Threads,
    shot: Path | Sequence[Path],
    *,
    studio: Studio | None = None,
    listener: Listener | None = None,
    collect: bool = False,
    model: ModelEntry = MODEL,
    **asked: Any,
) -> Outcome:
    """Plan and run with the workers of a cluster, with `key.png` beside the (first) shot as the key."""
    shots = [shot] if isinstance(shot, Path) else list(shot)
    request = ShotRequest(tuple(map(str, shots)), (str(shots[0].parent / "key.png"),), **asked)
    plans = plan_shots(request)
    studio = studio or Studio()
    listener = listener or Listener()

    def no_model() -> FakeColorizer:
        raise AssertionError("this process colors nothing")

    with ClusterCrew(cluster, request.preset, studio.load, collect=collect, model=model) as crew:
        result = run_plans(plans, request.preset, listener, load_colorizer=no_model, model=model, crew=crew)
    counted = FakeColorizer(colored=studio.colored, encoded=studio.encoded)
    return Outcome(result, listener, counted, plans, len(studio.colorizers))


def with_other_weights(order: Order) -> Order:
    """An order after which a worker looks for other weights than it has."""
    assert isinstance(order, EngineOrder)
    return replace(order, expected=(order.expected[0].model_copy(update={"sha256": "cd" * 32}),))
