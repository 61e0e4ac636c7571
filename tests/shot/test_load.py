"""What a long shot costs beside its coloring, counted and not timed: questions to the disk, bytes, records, memory.

Each count is taken for a short and for a longer shot; what a further frame adds is the difference, and what is asked
once a shot falls out of it. Seconds for 10,000 frames are measured by `python -m benchmarks.load`.
"""

import builtins
import gc
import hashlib
import io
import os
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.load import draw_load_shot
from colorcli.cli.main import main
from colorcli.shot import stamps
from colorcli.shot.journal import Journal
from colorcli.shot.manifest import read_records
from colorcli.shot.plan import ShotRequest, plan_shots

FEW, MANY = 24, 72   # frames


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count what Python asks the system for: "open", "stat", "list", "hash"; and "lines" that go into journals."""
    counts: Counter[str] = Counter()

    def count(what: str, function: Callable):
        def asked(first, *more, **named):
            # A file that is open already is only looked at: `os.fstat` and `os.fdopen` ask no file server.
            counts[what] += not isinstance(first, int)
            return function(first, *more, **named)

        return asked

    with monkeypatch.context() as patch:
        for module, name, what in (
            (os, "open", "open"), (io, "open", "open"), (builtins, "open", "open"),
            (os, "stat", "stat"), (os, "lstat", "stat"), (os, "scandir", "list"), (os, "listdir", "list"),
            (hashlib, "file_digest", "hash"),
        ):
            patch.setattr(module, name, count(what, getattr(module, name)))
        patch.setattr(Journal, "add", count("lines", Journal.add))
        yield counts


def command(folder: Path, frames: int, *more: str) -> list[str]:
    shot = folder / f"shot{frames}" / "walk"
    return [str(shot), "--ref", str(shot.parent / "key.png"), "-o", str(shot.parent / "out"), "--engine", "stand-in",
            "-q", "--set", "canvas.area=16384", *more]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short and a longer shot, both colored, and looked through once since."""
    folder = tmp_path_factory.mktemp("load")
    for frames in (FEW, MANY):
        draw_load_shot(folder / f"shot{frames}" / "walk", frames)
        assert main(command(folder, frames)) == 0
    time.sleep(2 * stamps.FINE_SECONDS)
    for frames in (FEW, MANY):
        assert main(command(folder, frames)) == 0
    return folder


@pytest.fixture
def a_frame_adds(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], object]], dict[str, float]]:
    """What one more frame adds to the counts of a call that is made for FEW and for MANY frames."""

    def measure(call: Callable[[int], object]) -> dict[str, float]:
        found = []
        for frames in (FEW, MANY):
            with counted(monkeypatch) as counts:
                call(frames)
            found.append(counts)
        few, many = found
        return {name: (many[name] - few[name]) / (MANY - FEW) for name in many | few if many[name] != few[name]}

    return measure


def test_planning_opens_every_drawing_once_and_asks_for_nothing_else(done: Path, a_frame_adds) -> None:
    def plan(frames: int) -> None:
        shot = done / f"shot{frames}" / "walk"
        request = ShotRequest((str(shot),), (str(shot.parent / "key.png"),), out=shot.parent / "new")
        assert len(plan_shots(request)[0].jobs) == frames

    assert a_frame_adds(plan) == {"open": 1}


def test_a_run_that_finds_all_done_reads_no_file_and_writes_no_line(done: Path, a_frame_adds) -> None:
    def resume(frames: int) -> None:
        assert main(command(done, frames)) == 0

    # To plan it, and to see whether the drawing and the picture are the files that they were.
    assert a_frame_adds(resume) == {"open": 3}


def test_a_thorough_run_reads_drawing_and_picture_once(done: Path, a_frame_adds) -> None:
    def resume(frames: int) -> None:
        assert main(command(done, frames, "--thorough")) == 0

    assert a_frame_adds(resume) == {"open": 3, "hash": 2}


def test_verifying_opens_every_file_once(done: Path, a_frame_adds) -> None:
    def verify(frames: int) -> None:
        assert main(["manifest", "verify", str(done / f"shot{frames}" / "out")]) == 0

    assert a_frame_adds(verify) == {"open": 2, "hash": 2, "stat": 1}, "of the picture and of its drawing"


def test_coloring_asks_for_each_frame_only_so_much(tmp_path: Path, a_frame_adds) -> None:
    for frames in (FEW, MANY):
        draw_load_shot(tmp_path / f"shot{frames}" / "walk", frames)

    def color(frames: int) -> None:
        assert main(command(tmp_path, frames)) == 0

    added = a_frame_adds(color)
    assert added["lines"] == 1
    assert added["hash"] == 2, "drawing and picture"
    # On a busy machine the run also looks at OUT once more, by the clock: part of one for each frame.
    assert added["open"] < 7.5, "to plan, to hash, to decode; to claim, to write, to save, to hash what was written"
    assert added["stat"] <= 4
    assert added["list"] <= 1.5, "of the leases, and now and then of OUT"


def test_what_is_done_is_told_without_asking_for_each_picture(done: Path, a_frame_adds) -> None:
    def dry_run(frames: int) -> None:
        assert main([*command(done, frames), "--dry-run"]) == 0

    assert a_frame_adds(dry_run) == {"open": 1}


def test_a_finished_frame_takes_a_few_kilobytes_of_memory(done: Path) -> None:
    held = []
    main(command(done, FEW))   # what is loaded once is not counted
    for frames in (FEW, MANY):
        gc.collect()
        tracemalloc.start()
        try:
            assert main(command(done, frames)) == 0
            held.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert (held[1] - held[0]) / (MANY - FEW) < 24_000


def test_fifty_shots_in_one_tree_are_listed_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(shots: int) -> Counter[str]:
        root = tmp_path / f"tree{shots}"
        for number in range(shots):
            draw_load_shot(root / f"c{number:03d}", 1, first=number + 1)
            (root / "key.png").replace(tmp_path / "key.png")
        request = ShotRequest((str(root),), (str(tmp_path / "key.png"),), out=tmp_path / "out")
        with counted(monkeypatch) as counts:
            assert len(plan_shots(request)) == shots
        return counts

    few, many = plan(10), plan(50)
    added = {name: (many[name] - few[name]) / 40 for name in many | few}
    assert added["list"] <= 2, "for its frames, and for the folders below"
    assert added["open"] <= 4, "the drawing and the key, and whether the folder is a result"
    assert added["stat"] <= 16 * len(tmp_path.parts), "to know folders by their real names, part by part"


def test_records_of_a_shot_that_is_done_stay_as_they_are(done: Path) -> None:
    before = read_records(done / f"shot{FEW}" / "out")
    assert main(command(done, FEW)) == 0
    assert read_records(done / f"shot{FEW}" / "out") == before
