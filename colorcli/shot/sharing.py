"""Sharing a shot with other processes that color into the same OUT: who takes what, and waiting for the others.

`Leases` know how a thing is taken; here is what is taken: journals, the manifest, and frames.
"""

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from colorcli.shot.journal import Journal, JournalReader, is_torn
from colorcli.shot.leases import Leases, lease_name
from colorcli.shot.manifest import FrameRecord, journal_paths
from colorcli.shot.plan import FrameJob
from colorcli.shot.records import Records

JOURNAL_LEASE = "journal-"
SECONDS_TO_AGREE = 10.0   # that a process waits for another to write the manifest
LOOKS_IN_SILENCE = 4   # at frames in other hands, before it is told whose they are


@dataclass(frozen=True)
class _Aside:
    """A frame that another process works on, or on its drawing."""

    job: FrameJob
    leases: tuple[str, ...]
    known: FrameRecord | None


class Sharing:
    """What this process has taken of the frames of one shot, and what is in other hands."""

    def __init__(
        self, leases: Leases, journals: JournalReader, records: Records, own: str, warn: Callable[[str], None]
    ) -> None:
        """journals: of all processes; what they say goes into `records`. own: the name of this one's. warn: is told who
        is waited for."""
        self._leases, self._journals, self._records, self._own, self._warn = leases, journals, records, own, warn
        self._claims: dict[str, tuple[str, ...]] = {}   # output -> what this process has to itself for it
        self._aside: dict[str, _Aside] = {}             # output -> a frame that is in other hands
        self._next_look = 0.0
        self._looks_in_vain = 0
        self._told: set[str] = set()                    # who is waited for

    def claim(self, job: FrameJob, print_: str, stretch: int | None, known: FrameRecord | None) -> bool:
        """Take a frame for this process, until it is given back; False: it is in other hands, and put aside.

        print_: its fingerprint. stretch: see `Ties`. known: what was recorded of it when it was read.
        """
        leases = _leases_for(job, print_, stretch)
        taken: list[str] = []
        for lease in leases:
            if not self._leases.claim(lease):
                for one in taken:
                    self._leases.release(one)
                self._aside[job.output.name] = _Aside(job, leases, known)
                return False
            taken.append(lease)
        self._claims[job.output.name] = tuple(taken)
        return True

    def give_back(self, output: str | None) -> None:
        """Let others have what was taken for a frame."""
        for lease in self._claims.pop(output or "", ()):
            self._leases.release(lease)

    def hear(self) -> None:
        """Learn what other processes have recorded since the last time."""
        in_use = {lease.removeprefix(JOURNAL_LEASE) for lease in self._leases.last_seen(JOURNAL_LEASE)}
        for record in self._journals.read(in_use, self._own):
            self._records.learn(record)

    @property
    def is_left(self) -> bool:
        """Whether frames are in other hands."""
        return bool(self._aside)

    @property
    def is_due(self) -> bool:
        """Whether it is time to look at what is in other hands."""
        return bool(self._aside) and time.monotonic() >= self._next_look

    def take_up(self) -> list[FrameJob]:
        """Give the frames that no other process has any more, or has finished."""
        self._next_look = time.monotonic() + self._leases.times.poll_seconds
        self.hear()
        taken = self._leases.taken({lease for aside in self._aside.values() for lease in aside.leases})
        found: list[FrameJob] = []
        for name, aside in list(self._aside.items()):
            known = self._records.of(aside.job)
            if known is not aside.known or not any(lease in taken for lease in aside.leases):
                del self._aside[name]
                found.append(aside.job)
        return found

    def wait(self) -> list[FrameJob]:
        """Wait a moment for other processes, as all that is left is in their hands; gives what `take_up` does."""
        found = self.take_up()
        if found:
            self._looks_in_vain = 0
            return found
        self._looks_in_vain += 1
        if self._looks_in_vain > LOOKS_IN_SILENCE:
            self._tell_who_is_waited_for()
        time.sleep(self._leases.times.poll_seconds)
        return []

    def _tell_who_is_waited_for(self) -> None:
        taken = self._leases.taken({lease for aside in self._aside.values() for lease in aside.leases})
        hands: dict[str, list[str]] = {}
        for aside in self._aside.values():
            for who in {taken[lease] for lease in aside.leases if lease in taken}:
                hands.setdefault(who, []).append(aside.job.name)
        for who in sorted(hands.keys() - self._told):
            self._told.add(who)
            self._warn(f"{who} is coloring {_some_of(hands[who])}: waiting for it")


def free_journal(leases: Leases, out: Path, usual: str) -> str:
    """Take a journal that no other process writes; gives its name. usual: the name that is tried first."""
    for number in itertools.count(1):
        name = usual if number == 1 else f"{usual.removesuffix('.jsonl')}.process{number}.jsonl"
        path = out / name
        if path.exists() and not os.access(path, os.W_OK):
            continue   # another user's
        # Who was only silent for a while may still add a line.
        if leases.claim(_journal_lease(name), from_silent=False):
            leases.remember(_journal_lease(name))   # they shall read it also if it was written in a second
            return name
    raise AssertionError("there is always one more number")


def mend_journals(leases: Leases, out: Path, own: Path) -> None:
    """Take away the torn last lines that killed processes left in their journals; `own` is this one's."""
    for path in journal_paths(out):
        if is_torn(path) and path != own:
            with alone(leases, _journal_lease(path.name), patience=0) as mine:
                if mine:
                    Journal(path).close()


@contextlib.contextmanager
def alone(leases: Leases, what: str, patience: float) -> Iterator[bool]:
    """Have something to oneself; False after that many seconds of waiting in vain."""
    ends = time.monotonic() + patience
    while not (mine := leases.claim(what, from_silent=False)) and time.monotonic() < ends:
        time.sleep(0.05)
    try:
        yield mine
    finally:
        if mine:
            leases.release(what)


def _leases_for(job: FrameJob, print_: str, stretch: int | None) -> tuple[str, ...]:
    """What a process needs to itself to make a frame: its drawing, wherever it is held.

    Where frames depend on others, also the stretch that it is in: two processes that took turns would both do what
    the frames of it have in common.
    """
    drawing = lease_name("drawing", print_)
    if stretch is None or job.number is None:
        return (drawing,)
    return lease_name("stretch", f"{job.number // stretch} {job.sequence}"), drawing


def _some_of(names: Sequence[str]) -> str:
    """A list of frames in words: walk.0003, walk.0004 and 12 more."""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


def _journal_lease(name: str) -> str:
    return f"{JOURNAL_LEASE}{name}"
