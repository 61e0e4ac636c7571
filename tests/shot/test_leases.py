"""Leases: one process at a time has a thing, whatever clocks say, and nothing is left behind."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from colorcli.errors import OutputError
from colorcli.shot import leases
from colorcli.shot.leases import FOLDER, Leases, LeaseTimes

QUICK = LeaseTimes(beat_seconds=0.02, silent_seconds=0.3, poll_seconds=0.02)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Leases]:
    with Leases(tmp_path, QUICK) as opened:
        yield opened


@contextlib.contextmanager
def elsewhere(out: Path, times: LeaseTimes = QUICK) -> Iterator[Leases]:
    """Leases of a process on another machine, as this one sees it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leases, "_machine", lambda: "ab" * 6)
        other = Leases(out, times)
    with other:
        yield other


def killed(out: Path, program: str) -> None:
    """Run something in a process of its own that has `leases` of OUT, and is killed at its end."""
    program = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from colorcli.shot.leases import Leases
        out = Path({str(out)!r})
        leases = Leases(out)
        leases.open()
        {program}
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == -signal.SIGKILL


def wait_until(true: object, seconds: float = 10) -> None:
    ends = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < ends, "it never came true"
        time.sleep(0.01)


def test_what_one_process_has_the_other_does_not_get_until_it_is_given_back(mine, tmp_path):
    with Leases(tmp_path, QUICK) as other:
        assert mine.claim("drawing-a")
        assert not other.claim("drawing-a")
        assert other.claim("drawing-b")
        mine.release("drawing-a")
        assert other.claim("drawing-a")


def test_what_was_claimed_three_times_is_given_back_the_third_time(mine, tmp_path):
    with Leases(tmp_path, QUICK) as other:
        assert [mine.claim("drawing-a") for _ in range(3)] == [True] * 3
        for expected in (False, False, True):
            mine.release("drawing-a")
            assert other.claim("drawing-a") is expected


def test_nothing_is_left_behind(tmp_path):
    with Leases(tmp_path, QUICK) as one, Leases(tmp_path, QUICK) as two:
        one.claim("drawing-a")
        two.claim("drawing-b")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_to_be_remembered_stays_until_the_last_one_is_out(tmp_path):
    with Leases(tmp_path, QUICK) as mine:
        for _ in range(2):
            with Leases(tmp_path, QUICK) as short:
                assert short.claim("journal-b") and short.claim("drawing-b")
                short.remember("journal-b")
        assert mine.claim("drawing-b")
        assert mine.last_seen("journal-") == ["journal-b"]
        assert mine.taken(["journal-b"]) == {}
    assert list(tmp_path.iterdir()) == []


def test_who_has_something_is_told_in_words(mine, tmp_path):
    with Leases(tmp_path, QUICK) as other:
        other.claim("drawing-a")
        assert mine.taken(["drawing-a", "drawing-b"]) == {
            "drawing-a": f"process {os.getpid()} on {leases._host()}"
        }
        assert other.taken(["drawing-a"]) == {}


def test_what_a_killed_process_of_this_machine_had_is_free_at_once(tmp_path):
    killed(tmp_path, "leases.claim('drawing-a')")
    started = time.monotonic()
    with Leases(tmp_path, LeaseTimes(silent_seconds=1e6)) as mine:
        assert mine.claim("drawing-a")
        mine.release("drawing-a")
        mine.sweep()
    assert list(tmp_path.iterdir()) == []
    assert time.monotonic() - started < 5   # and not a million seconds


def test_a_process_elsewhere_is_dead_only_after_its_silence(tmp_path):
    never = LeaseTimes(beat_seconds=1e6)   # it is stopped, or its machine is
    with elsewhere(tmp_path, never) as other, Leases(tmp_path, QUICK) as mine:
        other.claim("drawing-a")
        started = time.monotonic()
        assert not mine.claim("drawing-a")
        wait_until(lambda: mine.claim("drawing-a"))
        assert time.monotonic() - started >= QUICK.silent_seconds
        # It wakes up: what it believes to have is another's, and stays so.
        other.release("drawing-a")
        with Leases(tmp_path, QUICK) as third:
            assert not third.claim("drawing-a")


def test_a_process_that_somebody_stopped_is_not_waited_for_for_ever(tmp_path):
    """With Ctrl-Z, on this machine; what it had comes back to nobody when it goes on."""
    with Leases(tmp_path, LeaseTimes(beat_seconds=1e6)) as other, Leases(tmp_path, QUICK) as mine:
        other.claim("drawing-a")
        assert not mine.claim("drawing-a")
        wait_until(lambda: mine.claim("drawing-a"))


def test_a_process_that_shows_signs_of_life_is_never_taken_for_dead(tmp_path):
    with elsewhere(tmp_path) as other, Leases(tmp_path, QUICK) as mine:
        other.claim("drawing-a")
        time.sleep(3 * QUICK.silent_seconds)
        assert not mine.claim("drawing-a")


@pytest.mark.parametrize("moment", [0, 4e9], ids=["1970", "2096"])
def test_clocks_that_are_decades_apart_do_not_matter(tmp_path, moment):
    """Signs of life dated by a clock that stands still count as what they are: new ones."""
    with elsewhere(tmp_path) as other, Leases(tmp_path, QUICK) as mine:
        other.claim("drawing-a")
        ends = time.monotonic() + 3 * QUICK.silent_seconds
        while time.monotonic() < ends:
            for path in (tmp_path / FOLDER).iterdir():
                os.utime(path, (moment, moment))
            assert not mine.claim("drawing-a")
            time.sleep(0.01)


def test_silence_that_nobody_listened_to_does_not_count(tmp_path, monkeypatch):
    """This machine slept for an hour between two looks."""
    times = LeaseTimes(beat_seconds=0.02, silent_seconds=600)
    clock, skipped = time.monotonic, threading.Event()
    monkeypatch.setattr(leases.time, "monotonic", lambda: clock() + (3600 if skipped.is_set() else 0))
    with elsewhere(tmp_path, LeaseTimes(beat_seconds=1e6)) as other, Leases(tmp_path, times) as mine:
        other.claim("drawing-a")
        wait_until(lambda: other.name in mine._watched)
        skipped.set()
        time.sleep(0.2)   # ten looks
        assert not mine.claim("drawing-a")


def test_a_journal_of_a_process_that_is_only_silent_is_left_alone(tmp_path):
    with elsewhere(tmp_path, LeaseTimes(beat_seconds=1e6)) as other, Leases(tmp_path, QUICK) as mine:
        other.claim("journal-frames.jsonl")
        other.claim("drawing-a")
        wait_until(lambda: mine.claim("drawing-a"))
        assert not mine.claim("journal-frames.jsonl", from_silent=False)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_a_file_system_without_links_will_do(tmp_path, monkeypatch, code):
    def link(source: object, path: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    with Leases(tmp_path, QUICK) as one, Leases(tmp_path, QUICK) as two:
        assert one.claim("drawing-a")
        assert not two.claim("drawing-a")
        one.release("drawing-a")
        assert two.claim("drawing-a")
    assert list(tmp_path.iterdir()) == []


def test_a_lease_that_never_said_whose_it_is_is_given_up_after_silence(mine, tmp_path):
    (tmp_path / FOLDER / "drawing-a.0.lease").write_bytes(b"")   # killed between making it and writing into it
    started = time.monotonic()
    assert not mine.claim("drawing-a")
    wait_until(lambda: mine.claim("drawing-a"))
    assert time.monotonic() - started >= QUICK.silent_seconds / 2


def test_a_lease_whose_owner_is_gone_is_free(mine, tmp_path):
    said = f"{'cd' * 6}-77-1234-00000000.alive host 77 000000000001\n"
    for generation in (0, 3):
        (tmp_path / FOLDER / f"drawing-a.{generation}.lease").write_text(said)
    assert mine.claim("drawing-a")
    assert mine.taken(["drawing-a"]) == {}
    mine.release("drawing-a")
    assert not list((tmp_path / FOLDER).glob("*.lease"))


@pytest.mark.parametrize("content", [b"\xff" * 5000, b"../../etc/passwd x\n", b"\0", b"-1--1.alive"])
def test_leases_written_by_nobody_we_know_harm_nothing(mine, tmp_path, content):
    for name in ("a.0.lease", "a.99999999.lease", "a.x.lease", "x.alive", "b.9999.lease"):
        (tmp_path / FOLDER / name).write_bytes(content)
    mine.sweep()
    assert not mine.claim("a")
    wait_until(lambda: mine.claim("a"))


def test_a_folder_of_leases_that_leads_elsewhere_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / FOLDER).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is a link"):
        Leases(tmp_path / "out").open()


def test_an_answer_that_was_lost_on_the_way_is_no_refusal(mine, tmp_path, monkeypatch):
    """The file server made the link, and says when it is asked once more that the name is taken."""
    real = os.link

    def link(source: object, path: object) -> None:
        real(source, path)  # type: ignore[arg-type]
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", link)
    assert mine.claim("drawing-a")
    monkeypatch.undo()
    with Leases(tmp_path, QUICK) as other:
        assert not other.claim("drawing-a")


def test_a_sign_of_life_that_somebody_took_away_is_shown_again(mine, tmp_path):
    wait_until(lambda: list((tmp_path / FOLDER).glob("*.alive")))
    (tmp_path / FOLDER / mine.name).unlink()
    wait_until(lambda: (tmp_path / FOLDER / mine.name).exists())
    assert mine.claim("drawing-a")


def test_temporary_files_of_the_dead_are_swept_and_those_of_the_living_are_not(tmp_path):
    killed(tmp_path, "(out / f'.walk.0001.png.{os.getpid()}-00ab.tmp').write_bytes(b'half'); leases.claim('drawing-a')")
    living = tmp_path / f".walk.0002.png.{os.getpid()}-00ab.tmp"
    strange, ancient = tmp_path / ".walk.0003.png.1-00ab.tmp", tmp_path / ".walk.0004.png.1-00ab.tmp"
    for path in (living, strange, ancient):
        path.write_bytes(b"half")
    os.utime(ancient, (0, 0))   # by the clock of the file server, which stamps our sign of life as well
    with Leases(tmp_path, QUICK) as mine:
        mine.sweep()
        assert sorted(path.name for path in tmp_path.glob(".walk*")) == sorted([living.name, strange.name])
        assert [path.name for path in (tmp_path / FOLDER).iterdir()] == [mine.name]


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(mine, tmp_path, monkeypatch):
    def scandir(folder: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with Leases(tmp_path, QUICK) as other:
        other.claim("drawing-a")
        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", scandir)
            for claim in ("drawing-a", "drawing-b"):
                with pytest.raises(OutputError, match="Input/output error"):
                    mine.claim(claim)
        assert not mine.claim("drawing-a")


def test_a_full_disk_is_told_in_words(tmp_path, monkeypatch):
    def mkdir(self: Path, *others: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(OutputError, match="the disk is full"):
        Leases(tmp_path).open()


def test_processes_that_fight_over_few_things_and_are_killed_never_have_one_together(tmp_path):
    """Six at a time take and give back three things as fast as they can; every third of them is killed."""
    program = textwrap.dedent(f"""
        import os, random, signal, time
        from pathlib import Path
        from colorcli.shot.leases import Leases, LeaseTimes
        out = Path({str(tmp_path / "out")!r})
        def holder(mark):
            try:
                return int(mark.read_text() or 0)
            except OSError:
                return 0
        def runs(pid):
            try:
                state = Path(f"/proc/{{pid}}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                return False
            return state not in "ZX"
        for child in range(6):
            if os.fork() == 0:
                chance = random.Random(child)
                with Leases(out, LeaseTimes(beat_seconds=0.05)) as leases:
                    ends = time.monotonic() + 1
                    while time.monotonic() < ends:
                        what = chance.choice("abc")
                        if leases.claim(what):
                            mark = out.parent / what
                            if runs(holder(mark)):
                                (out.parent / "together").write_text(what)
                            mark.write_text(str(os.getpid()))
                            time.sleep(chance.choice([0, 0, 0.002]))
                            if child % 3 == 0 and chance.random() < 0.01:
                                os.kill(os.getpid(), signal.SIGKILL)
                            mark.write_text("")
                            leases.release(what)
                            with (out.parent / "count").open("a") as file:
                                file.write(what)
                os._exit(0)
        codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(6)]
        with Leases(out) as leases:
            leases.sweep()
        assert set(codes) <= {{0, -9}}, codes
    """)
    (tmp_path / "out").mkdir()
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == 0
    assert not (tmp_path / "together").exists()
    assert len((tmp_path / "count").read_text()) > 20
    assert list((tmp_path / "out").iterdir()) == []
