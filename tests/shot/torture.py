"""Kill a run of colorcli again and again, and see whether anything is lost: python -m tests.shot.torture --kills 200

A round begins with an empty OUT. The same command is started and killed until one run comes to its end by itself; then
every picture has to be that of a run that nobody disturbed, nothing else may lie in OUT, and `verify` finds nothing.

A process is killed by itself directly before the n-th thing that it does to a file in OUT (opens, renames, links or
removes one: the interpreter tells of each), so every place between temporary file, rename, journal and lease gets its
turn; or by another process after some time, in the middle of anything. In some rounds two are at work. After every kill
each picture that is there has to be whole; and no frame that a journal once had is ever made again.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Every child runs with what is imported here once.
from colorcli.cli import dry_run, render  # noqa: F401
from colorcli.cli.main import main as colorcli
from colorcli.shot import run, stand_in  # noqa: F401
from colorcli.shot.manifest import journal_paths, read_journal
from colorcli.shot.verify import verify
from tests.shot.studio import draw_shot

FRAMES = 8
HELD = (3, 4, 7)    # are the drawing of frame 2
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CHANGES = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"}
MOST_EVENTS = 60    # of each run that is killed by itself
MOST_SECONDS = 0.25


@dataclass
class Report:
    """What was done, and where processes were killed."""

    kills: int = 0
    runs: int = 0
    rounds: int = 0
    together: int = 0                                              # runs beside which another one was at work
    signals: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)


def place_of(event: str, path: str) -> str:
    """Say in words what was about to happen to which kind of file."""
    name = Path(path).name
    kinds = {
        "a temporary file": name.endswith(".tmp"),
        "a lease": name.endswith(".lease"),
        "a sign of life": name.endswith(".alive"),
        "the folder of leases": name == ".leases",
        "a journal": name.endswith(".jsonl"),
        "the manifest": name == "manifest.json",
        "a picture": name.endswith(".png"),
    }
    return f"{event} of {next((words for words, fits in kinds.items() if fits), 'OUT')}"


def killing_itself(out: Path, number: int, stop: int, told: Path) -> Callable[[str, tuple[Any, ...]], None]:
    """A hook that sends a signal to its own process directly before the n-th thing that is done to a file in OUT."""
    root, count = str(out), 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in CHANGES or not arguments or not isinstance(arguments[0], (str, os.PathLike)):
            return
        path = os.fspath(arguments[0])
        if not path.startswith(root):
            return
        count += 1
        if count == number:
            told.write_text(place_of(event, path))
            os.kill(os.getpid(), stop)

    return hook


def in_a_child(work: Callable[[], int], log: Path) -> int:
    """Start something in a process of its own, which has all that is imported; give its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(output, stream)
        signal.signal(signal.SIGINT, signal.default_int_handler)   # a shell turns it off for what runs behind it
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for a child; its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Torture:
    """One shot, and what is done to it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.chance, self.report = folder, random.Random(seed), Report()
        self.shot, self.out, self.log = folder / "walk", folder / "rough", folder / "log.txt"
        self._told = folder / "place.txt"
        # Not in this process: what has started threads cannot be forked.
        assert ended(in_a_child(self._draw, self.log)) == 0, self.log.read_text()
        assert ended(self._start(folder / "calm")) == 0, self.log.read_text()
        self.wanted = pictures(folder / "calm")
        assert len(self.wanted) == FRAMES

    def run(self, kills: int) -> Report:
        """Kill so many processes."""
        while self.report.kills < kills:
            shutil.rmtree(self.out, ignore_errors=True)
            two = self.chance.random() < 0.25
            while self._kill_one(two):
                pass
            self.report.rounds += 1
            self._check()
        return self.report

    def _draw(self) -> int:
        draw_shot(self.shot, range(1, FRAMES + 1))
        for number in HELD:
            shutil.copyfile(self.shot / "walk.0002.png", self.shot / f"walk.{number:04d}.png")
        return 0

    def _start(self, out: Path, hook: Callable[[str, tuple[Any, ...]], None] | None = None) -> int:
        arguments = [
            str(self.shot), "--ref", str(self.folder / "key.png"), "-o", str(out), "--engine", "stand-in",
            "--progress", "none", "--set", "canvas.size=[128,128]", "--set", "masks.source=none",
        ]  # fmt: skip

        def work() -> int:
            if hook is not None:
                sys.addaudithook(hook)
            return colorcli(arguments)

        return in_a_child(work, self.log)

    def _kill_one(self, two: bool) -> bool:
        """Start a run and end it; False: it came to its end before."""
        stop = self.chance.choice(SIGNALS)
        by_itself = self.chance.random() < 0.75
        self._told.unlink(missing_ok=True)
        companion = self._start(self.out) if two else None
        if by_itself:
            pid = self._start(
                self.out, killing_itself(self.out, self.chance.randint(1, MOST_EVENTS), stop, self._told)
            )
        else:
            pid = self._start(self.out)
            time.sleep(self.chance.uniform(0, MOST_SECONDS))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, stop)
        code = ended(pid)
        beside = ended(companion) if companion is not None else 0
        wanted = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}[stop]
        self.report.runs += 1
        self.report.together += two
        assert code in (0, wanted), (code, stop, self.log.read_text()[-2000:])
        assert beside == 0, (beside, self.log.read_text()[-2000:])
        assert pictures(self.out).items() <= self.wanted.items(), "a picture is there in part"
        if code != 0:
            self.report.kills += 1
            self.report.signals[stop.name] += 1
            self.report.places[self._told.read_text() if by_itself else "at some time"] += 1
        return code != 0

    def _check(self) -> None:
        """Look at what a run has left that was not killed."""
        assert pictures(self.out) == self.wanted
        assert not made_twice(self.out), "a finished frame was lost"
        journals = {path.name for path in journal_paths(self.out)}
        there = {path.name for path in self.out.iterdir()}
        assert there == {*self.wanted, "manifest.json", *journals}, there
        assert not verify(self.out)
        assert json.loads((self.out / "manifest.json").read_text())["totals"]["frames"] == FRAMES


def pictures(out: Path) -> dict[str, bytes]:
    """Name -> bytes of all pictures."""
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.png"))}


def made_twice(out: Path) -> list[str]:
    """Frames that the journals say were made more than once."""
    records = [record for path in journal_paths(out) for record in read_journal(path)]
    counts = Counter(record.frame for record in records if record.status in ("written", "held"))
    return [frame for frame, count in counts.items() if count > 1]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Torture(Path(folder), asked.seed).run(asked.kills)
    lines = [
        f"{report.kills} kills in {report.runs} runs and {report.rounds} rounds, seed {asked.seed}, "
        f"{report.together} runs beside another; {time.monotonic() - started:.0f} s",
        ", ".join(f"{count} {name}" for name, count in sorted(report.signals.items())),
        *(f"{count:5d}  before {place}" for place, count in report.places.most_common()),
        "every round ended with every picture right and made once, nothing else in OUT, and a manifest that verifies",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
