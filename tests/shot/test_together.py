"""Several processes that color one shot into one OUT: nothing is done twice, nobody waits for the dead."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from colorcli.errors import OutputError
from colorcli.shot.journal import Journal, later_than
from colorcli.shot.leases import FOLDER, LeaseTimes
from colorcli.shot.manifest import Failure, FrameRecord, journal_paths, read_journal, read_manifest, read_records
from colorcli.shot.verify import verify
from tests.shot.studio import FakeColorizer, Outcome, as_painted, color, draw, draw_shot

QUICK = LeaseTimes(beat_seconds=0.02, silent_seconds=30, poll_seconds=0.02)   # a busy machine is no dead one
IMPATIENT = LeaseTimes(beat_seconds=0.02, silent_seconds=0.3, poll_seconds=0.02)
ROOT = Path(__file__).parents[2]
FRAMES = 14
STEADY = as_painted(steady={"on": True, "reach": 1})
WARM = as_painted(warm_start={"on": True, "every": 4})


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    """Fourteen frames of nine drawings; one is held, and comes back at the end."""
    shot = draw_shot(tmp_path / "walk", range(1, FRAMES + 1))
    for number in (4, 5, 6, 12, 13):
        shutil.copyfile(shot / "walk.0003.png", shot / f"walk.{number:04d}.png")
    return shot


def at_once(*runs: Callable[[], Outcome]) -> list[Outcome]:
    """Run all of these at the same time."""
    outcomes: dict[int, Outcome] = {}
    start = threading.Barrier(len(runs))

    def work(number: int) -> None:
        start.wait()
        outcomes[number] = runs[number]()

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [outcomes[number] for number in range(len(runs))]


def slow() -> FakeColorizer:
    return FakeColorizer(before_color=lambda count: time.sleep(0.02))


def made(out: Path) -> Counter[str]:
    """How often each frame was made, as all journals tell."""
    records = [record for path in journal_paths(out) for record in read_journal(path)]
    return Counter(record.frame for record in records if record.status in ("written", "held"))


@pytest.mark.parametrize("count", [2, 4])
def test_processes_with_the_same_command_make_every_frame_once_and_color_every_drawing_once(walk, tmp_path, count):
    calm = color(walk, out=tmp_path / "calm")
    outcomes = at_once(*[lambda: color(walk, colorizer=slow(), lease_times=QUICK)] * count)
    out = outcomes[0].plans[0].out
    assert [outcome.result.exit_code for outcome in outcomes] == [0] * count
    assert outcomes[0].pictures() == calm.pictures()
    assert made(out) == Counter({f"walk.{number:04d}": 1 for number in range(1, FRAMES + 1)})
    assert sum(outcome.colorizer.asked for outcome in outcomes) == calm.colorizer.asked == FRAMES - 5
    # Each ends with the whole shot's result, whoever did it.
    for outcome in outcomes:
        totals = outcome.result.totals
        assert (totals.frames, totals.failed) == (FRAMES, 0)
        assert outcome.listener.progress[-1] == (FRAMES, FRAMES)
    assert len(journal_paths(out)) == len(read_manifest(out).runs) == count
    assert not verify(out)
    assert not list(out.glob(".*"))


def test_ranges_that_overlap_share_what_they_have_in_common(walk, tmp_path):
    outcomes = at_once(
        lambda: color(walk, frames="1-9", colorizer=slow(), lease_times=QUICK),
        lambda: color(walk, frames="4-14", colorizer=slow(), lease_times=QUICK),
    )
    out = outcomes[0].plans[0].out
    assert set(made(out).values()) == {1} and len(made(out)) == FRAMES
    assert sum(outcome.colorizer.asked for outcome in outcomes) == FRAMES - 5
    assert outcomes[0].pictures() == color(walk, out=tmp_path / "calm").pictures()
    assert {path.name for path in journal_paths(out)} == {"frames.1-9.jsonl", "frames.4-14.jsonl"}
    assert not verify(out)


@pytest.mark.parametrize("preset", [STEADY, WARM], ids=["steady", "warm"])
def test_frames_that_depend_on_others_come_out_the_same(walk, tmp_path, preset):
    calm = color(walk, out=tmp_path / "calm", preset=preset)
    outcomes = at_once(*[lambda: color(walk, colorizer=slow(), preset=preset, lease_times=QUICK)] * 2)
    out = outcomes[0].plans[0].out
    assert outcomes[0].pictures() == calm.pictures()
    assert set(made(out).values()) == {1} and len(made(out)) == FRAMES
    assert not verify(out)


def test_what_was_finished_between_the_look_and_the_claim_is_not_done_again(tmp_path):
    """One looks ahead, finds the next frames missing, and colors its first for so long that another does them."""
    walk = draw_shot(tmp_path / "walk", range(1, FRAMES + 1))
    others: list[Outcome] = []

    def long(count: int) -> None:
        if count == 0:
            time.sleep(0.3)   # it looks ahead meanwhile
            others.append(color(walk, frames="6-14", lease_times=QUICK))

    mine = color(walk, colorizer=FakeColorizer(before_color=long), lease_times=QUICK)
    (other,) = others
    assert mine.result.exit_code == other.result.exit_code == 0
    assert (mine.colorizer.asked, other.colorizer.asked) == (5, 9)
    assert set(made(mine.plans[0].out).values()) == {1}


def test_two_that_overwrite_do_it_once_between_them(walk):
    color(walk)
    outcomes = at_once(*[lambda: color(walk, overwrite=True, colorizer=slow(), lease_times=QUICK)] * 2)
    assert sum(outcome.colorizer.asked for outcome in outcomes) == FRAMES - 5
    assert set(made(outcomes[0].plans[0].out).values()) == {2}


def test_a_frame_that_one_process_cannot_color_is_tried_by_the_other(walk):
    """Perhaps it is its machine that is at fault."""

    def broken(count: int) -> None:
        time.sleep(0.02)
        raise RuntimeError("a broken card")

    outcomes = at_once(
        lambda: color(walk, colorizer=FakeColorizer(before_color=broken), lease_times=QUICK),
        lambda: color(walk, colorizer=slow(), lease_times=QUICK),
    )
    assert outcomes[1].result.exit_code == 0
    assert len(outcomes[1].pictures()) == FRAMES
    records = read_records(outcomes[1].plans[0].out)
    assert Counter(record.status for record in records)["failed"] == 0


@dataclass
class Elsewhere:
    """A process on another machine that is at work on the last frame; all others are done."""

    out: Path
    sign: Path           # of life
    lease: Path
    record: FrameRecord  # of what it will have done
    picture: bytes

    def beat(self, number: int) -> None:
        with self.sign.open("r+" if self.sign.exists() else "w") as file:   # in its place, never empty
            file.write(f"{self.sign.name} node12 77 {number:012d}\n")

    def finish(self) -> None:
        (self.out / "walk.0014.png").write_bytes(self.picture)
        with Journal(self.out / "frames.process9.jsonl") as journal:
            journal.add(self.record)
        self.lease.unlink()
        self.sign.unlink()


@pytest.fixture
def elsewhere(walk: Path) -> Elsewhere:
    saved: list[str] = []

    def look(count: int) -> None:
        saved[:] = [path.name for path in (out / FOLDER).glob("drawing-*.lease")]

    last = walk / "walk.0014.png"
    last.rename(walk.parent / "later.png")
    out = color(walk).plans[0].out
    (walk.parent / "later.png").rename(last)
    color(walk, colorizer=FakeColorizer(before_color=look))
    (lease,) = saved
    (record,) = [record for record in read_records(out) if record.frame == "walk.0014"]
    record = record.model_copy(update={"output_stamp": None, "finished": later_than(record.finished)})
    sign = out / FOLDER / f"{'ab' * 6}-77-1234-0123abcd.alive"
    other = Elsewhere(out, sign, out / FOLDER / lease, record, (out / last.name).read_bytes())
    (out / last.name).unlink()
    (out / FOLDER).mkdir()
    other.beat(1)
    os.link(sign, other.lease)
    return other


def test_a_frame_of_a_process_that_died_elsewhere_is_waited_for_and_then_colored(walk, elsewhere):
    started = time.monotonic()
    outcome = color(walk, lease_times=IMPATIENT)
    assert time.monotonic() - started >= IMPATIENT.silent_seconds
    assert outcome.colored == ["walk.0014"]
    assert outcome.listener.warnings == ["process 77 on node12 is coloring walk.0014: waiting for it"]
    assert outcome.pictures()["walk.0014.png"] == elsewhere.picture
    assert not list(elsewhere.out.glob(".*"))


def test_a_frame_that_is_finished_elsewhere_is_taken_over_and_not_colored(walk, elsewhere):
    """The other process lives, and ends with its frame while this one waits."""

    def other() -> None:
        for number in range(2, 40):
            elsewhere.beat(number)
            time.sleep(0.02)
        elsewhere.finish()

    helper = threading.Thread(target=other, daemon=True)
    helper.start()
    outcome = color(walk, lease_times=QUICK)
    helper.join()
    assert outcome.colored == []
    assert outcome.result.totals.skipped == FRAMES
    assert outcome.result.exit_code == 0
    assert outcome.listener.warnings == ["process 77 on node12 is coloring walk.0014: waiting for it"]


def test_who_waits_can_be_stopped(walk, elsewhere):
    """Ctrl-C does not wait for the other process."""

    def beat() -> None:
        for number in range(2, 60):
            elsewhere.beat(number)
            time.sleep(0.02)
            if number == 20:
                os.kill(os.getpid(), signal.SIGINT)

    helper = threading.Thread(target=beat, daemon=True)
    helper.start()
    outcome = color(walk, lease_times=QUICK)
    helper.join()
    assert outcome.result.exit_code == 130
    # Those that still work shall know of its journal.
    assert {path.name for path in (elsewhere.out / FOLDER).iterdir()} == {
        elsewhere.sign.name, elsewhere.lease.name, "journal-frames.jsonl.0.lease"
    }  # fmt: skip


def test_a_clock_that_is_ahead_has_not_the_last_word(walk):
    """A machine whose clock is two hours ahead failed at a frame; another one colors it now."""
    out = color(walk).plans[0].out
    (record,) = [record for record in read_records(out) if record.frame == "walk.0002"]
    ahead = (datetime.now(UTC) + timedelta(hours=2)).isoformat(timespec="microseconds")
    failed = record.model_copy(
        update={"status": "failed", "finished": ahead, "error": Failure(kind="device", message="no memory")}
    )
    with Journal(out / "frames.process2.jsonl") as journal:
        journal.add(failed)
    assert color(walk).colored == ["walk.0002"]
    assert not verify(out)
    assert color(walk).result.totals.skipped == FRAMES


def test_a_shot_that_is_up_to_date_takes_no_lease_of_a_frame(walk, monkeypatch):
    color(walk)
    taken = []
    real = os.link
    monkeypatch.setattr(os, "link", lambda source, path: (taken.append(Path(path).name), real(source, path)))
    assert color(walk).result.totals.skipped == FRAMES
    assert sorted(taken) == ["journal-frames.jsonl.0.lease", "manifest.0.lease"]


def test_a_folder_of_leases_that_somebody_deletes_stops_nothing(walk):
    out = walk.parent / "walk_color"

    def delete(count: int) -> None:
        if count == 2:
            shutil.rmtree(out / FOLDER)

    outcome = color(walk, colorizer=FakeColorizer(before_color=delete), lease_times=QUICK)
    assert outcome.result.exit_code == 0
    assert set(made(out).values()) == {1} and len(made(out)) == FRAMES
    assert not list(out.glob(".*"))


def test_an_out_that_goes_away_ends_the_run_in_order(walk):
    out = walk.parent / "walk_color"

    def delete(count: int) -> None:
        if count == 2:
            out.rename(walk.parent / "moved")

    outcome = color(walk, colorizer=FakeColorizer(before_color=delete), lease_times=QUICK)
    assert outcome.result.exit_code == OutputError.exit_code
    assert outcome.result.error is not None and str(out) in outcome.result.error.message
    assert not out.exists()
    (walk.parent / "moved").rename(out)
    again = color(walk, lease_times=IMPATIENT)   # the process that lost it still runs: this one
    assert again.result.exit_code == 0
    assert len(again.pictures()) == FRAMES
    assert set(made(out).values()) == {1}


def test_a_run_may_not_write_into_its_inputs_and_need_not(tmp_path):
    """The shot, its masks and its key lie on a disk that takes nothing."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=False, capture_output=True).returncode:
        pytest.skip("mounting a disk needs root")
    try:
        walk = draw_shot(disk / "walk", range(1, 4))
        for number in range(1, 4):
            draw(disk / "masks" / f"walk.{number:04d}.png", number)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        outcome = color(walk, out=tmp_path / "out", masks=(disk / "masks",))
        assert outcome.result.exit_code == 0
        assert len(outcome.pictures()) == 3
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_real_processes_share_a_shot(walk, tmp_path):
    program = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from tests.shot.studio import FakeColorizer, color
        slow = FakeColorizer(before_color=lambda count: time.sleep(0.05))
        print("ready", flush=True)
        sys.stdin.readline()
        outcome = color({str(walk)!r}, colorizer=slow)
        print(outcome.colorizer.asked)
        sys.exit(outcome.result.exit_code)
    """)
    command = [sys.executable, "-c", program]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    answers = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        answers.append(process.communicate()[0])
        assert process.returncode == 0
    out = tmp_path / "walk_color"
    assert sum(int(answer) for answer in answers) == FRAMES - 5
    assert set(made(out).values()) == {1} and len(made(out)) == FRAMES
    assert not verify(out)
    assert not list(out.glob(".*"))
