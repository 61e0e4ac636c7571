"""What there is to tell of a cluster: on the way to whoever runs the shot, and in the end in the manifest."""

import contextlib
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

NAMED_PLACES = 8   # in a line of the manifest


class Tidings:
    """What is wrong and stops nothing, and who did what. One thread tells, another one takes."""

    def __init__(self) -> None:
        self._news: deque[str] = deque()
        self._told: set[str] = set()
        self._notes: list[str] = []
        self._counts: Counter[str] = Counter()   # name of a worker -> frames
        self._described: dict[str, Mapping[str, Any]] = {}

    def tell(self, text: str) -> None:
        """Tell something once."""
        if text not in self._told:
            self._told.add(text)
            self._news.append(text)

    def note(self, text: str, once: bool = False) -> None:
        """Keep a line for the manifest. once: not if it is there."""
        if not (once and text in self._notes):
            self._notes.append(text)

    def count(self, name: str) -> None:
        """A worker has finished a frame."""
        self._counts[name] += 1

    def learn(self, place: str, described: Mapping[str, Any]) -> None:
        """Take over what is used at a place, as a colorizer tells it."""
        self._described[place] = described

    def take(self) -> list[str]:
        """Give what was not taken yet."""
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
