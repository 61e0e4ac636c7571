"""Batches made in the background, while the networks learn from the one before."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Turned = TypeVar("Turned")
Made = TypeVar("Made")

AHEAD = 2  # batches that wait at most: their pictures lie in memory


class Prefetched(Generic[Turned, Made]):
    """What `make` gives for each of `turns`, in their order, made by a thread that is at most `ahead` of the reader.

    Each batch comes from its turn alone, so it does not matter when it is made. Use it in a `with` statement: the
    thread ends with it. What `make` raises is raised where the batch is asked for. ahead 0: no thread.
    """

    def __init__(self, turns: Iterable[Turned], make: Callable[[Turned], Made], ahead: int = AHEAD) -> None:
        self._turns = turns
        self._make = make
        self._waiting: queue.Queue[tuple[Made | None, BaseException | None]] = queue.Queue(max(1, ahead))
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="batches", daemon=True) if ahead else None

    def __enter__(self) -> Iterator[Made]:
        if self._thread is None:
            return map(self._make, self._turns)
        self._thread.start()
        return self._made()

    def __exit__(self, *failure: object) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _made(self) -> Iterator[Made]:
        while True:
            made, failure = self._waiting.get()
            if failure is not None:
                raise failure
            if made is None:
                return
            yield made

    def _fill(self) -> None:
        try:
            for turn in self._turns:
                if self._closed.is_set() or not self._hand_over(self._make(turn), None):
                    return
            self._hand_over(None, None)
        except BaseException as failure:
            self._hand_over(None, failure)

    def _hand_over(self, made: Made | None, failure: BaseException | None) -> bool:
        """Put something into the queue; False if nobody reads it any more."""
        while not self._closed.is_set():
            try:
                self._waiting.put((made, failure), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
