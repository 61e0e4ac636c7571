"""What really lies in folders at two in the morning: each with its message, and nothing lost."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from colorcli.errors import KeyImageError, OutputError, ShotError
from colorcli.shot import shot_run
from colorcli.shot.manifest import read_manifest, read_records
from colorcli.shot.plan import ShotRequest, plan_shots
from colorcli.shot.run import run_plans
from colorcli.shot.verify import verify
from tests.shot.studio import MODEL, Listener, color, draw, draw_key, draw_shot


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    return draw_shot(tmp_path / "walk")


def cut(path: Path) -> None:
    """Keep the first half of a file, as a copy that was broken off."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut, "walk.0002.png is damaged"),
        (lambda path: path.write_bytes(b""), "walk.0002.png is empty (0 bytes)"),
        (lambda path: path.write_text("this is text"), "walk.0002.png is no picture"),
    ],
)
def test_a_spoiled_frame_is_named_and_the_others_are_colored(walk, spoil, words):
    spoil(walk / "walk.0002.png")
    outcome = color(walk)
    assert outcome.result.exit_code == 7
    assert list(outcome.pictures()) == ["walk.0001.png", "walk.0003.png", "walk.0004.png"]
    (failed,) = outcome.result.failed
    assert failed.error is not None
    assert failed.error.message.startswith(words)
    assert failed.error.hint
    assert failed.error.kind == "frame"


def test_a_mended_frame_is_all_that_the_next_run_colors(walk):
    cut(walk / "walk.0002.png")
    color(walk)
    draw(walk / "walk.0002.png", 2)
    again = color(walk)
    assert again.result.exit_code == 0
    assert again.colored == ["walk.0002"]
    assert read_manifest(again.plans[0].out).totals.failed == 0


def test_a_frame_that_was_spoiled_after_it_was_colored_is_marked_as_old(walk):
    color(walk)
    cut(walk / "walk.0002.png")
    outcome = color(walk)
    assert outcome.result.failed[0].checks == {"older_picture": True}
    assert (outcome.plans[0].out / "walk.0002.png").exists()
    assert [finding.kind for finding in verify(outcome.plans[0].out)] == ["failed"]


def test_a_shot_of_nothing_but_spoiled_frames_still_ends_in_order(walk):
    for path in walk.iterdir():
        path.write_bytes(b"")
    outcome = color(walk)
    assert outcome.result.exit_code == 7
    assert outcome.loads == 0
    assert outcome.result.totals.failed == 4


def test_a_frame_of_another_size_is_colored_at_its_own_size(walk):
    draw(walk / "walk.0003.png", 3, size=(200, 120))
    outcome = color(walk)
    assert outcome.result.exit_code == 0
    assert "walk.0003.png is 200x120, but this shot is 96x64" in outcome.listener.warnings
    from colorcli.images import read_size

    assert read_size(outcome.plans[0].out / "walk.0003.png") == (200, 120)


def test_a_frame_that_may_not_be_read_is_named(walk, monkeypatch):
    real = os.open

    def locked(path, *others, **more):
        # Root may read anything, so the refusal is played.
        if path == walk / "walk.0002.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *others, **more)

    monkeypatch.setattr(os, "open", locked)
    outcome = color(walk)
    assert outcome.result.exit_code == 7
    assert outcome.result.failed[0].error.message == "walk.0002.png may not be read"


def test_a_frame_that_goes_away_between_plan_and_run_is_named(walk):
    plans = []
    real = shot_run.ShotRun.run

    def run(self):
        plans.append(self.plan)
        (walk / "walk.0003.png").unlink()
        real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shot_run.ShotRun, "run", run)
        outcome = color(walk)
    assert outcome.result.failed[0].error.message == "walk.0003.png is missing"
    assert outcome.result.totals.written == 3


def test_a_link_that_points_nowhere_is_a_frame_that_failed(walk):
    (walk / "walk.0002.png").unlink()
    (walk / "walk.0002.png").symlink_to(walk / "gone.png")
    outcome = color(walk)
    assert outcome.result.exit_code == 7
    assert outcome.result.failed[0].error.message == "walk.0002.png is missing"


@pytest.mark.parametrize(
    "name",
    ["-o.0001.png", "line\nbreak.1.png", "a b'c\"d.0001.png", "動画é.0001.png", "x" * 230 + ".0001.png", "$(ls).1.png"],
)
def test_names_that_would_upset_a_shell_are_names_like_others(tmp_path, name):
    draw(tmp_path / "shot" / name)
    draw_key(tmp_path / "key.png")
    outcome = color(tmp_path / "shot")
    assert outcome.result.exit_code == 0
    assert list(outcome.pictures()) == [name]
    assert color(tmp_path / "shot").result.totals.skipped == 1
    assert not verify(outcome.plans[0].out)


def test_a_name_that_is_no_text_is_refused_by_name(walk):
    Path(os.fsdecode(bytes(walk / "walk") + b".\xff.png")).write_bytes(b"x")
    with pytest.raises(ShotError, match="whose name is not UTF-8"):
        color(walk)


def test_a_bug_in_the_engine_is_raised_after_the_reporter_was_told_of_the_end(walk):
    listener = Listener()
    request = ShotRequest((str(walk),), (str(walk.parent / "key.png"),))

    def load():
        raise ValueError("no such layer")

    with pytest.raises(ValueError, match="no such layer"):
        run_plans(plan_shots(request), request.preset, listener, load_colorizer=load, model=MODEL)
    assert listener.totals is not None


@pytest.mark.parametrize("name", ["empty", "full of other things"])
def test_a_folder_without_frames_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    if name != "empty":
        (tmp_path / name / "notes.txt").write_text("remember the milk")
    draw_key(tmp_path / "key.png")
    with pytest.raises(ShotError, match=name if name == "empty" else "holds no frames"):
        color(tmp_path / name)


def test_a_key_with_a_good_header_and_nothing_behind_it_is_refused_before_the_model_is_used(walk):
    cut(walk.parent / "key.png")
    outcome = color(walk)
    assert outcome.result.exit_code == 3
    assert isinstance(outcome.result.error, KeyImageError)
    assert "key.png is damaged" in outcome.result.error.message
    assert outcome.colorizer.encoded == 0


def test_a_spoiled_key_of_one_shot_leaves_the_other_shots_alone(tmp_path):
    shots = [draw_shot(tmp_path / name) for name in ("a", "b")]
    for name in ("a", "b"):
        draw_key(tmp_path / "keys" / f"{name}.png")
    cut(tmp_path / "keys" / "a.png")
    outcome = color(shots, ref=str(tmp_path / "keys" / "{shot}.png"))
    assert outcome.result.exit_code == 3
    assert outcome.result.totals.written == 4
    assert outcome.plans[1].out.joinpath("walk.0001.png").exists()


def full_after(count: int, journal: Path):
    """A disk that takes so many more pictures; the lines of the journal still fit."""
    real, written = os.fsync, []

    def fsync(descriptor: int):
        if os.path.samestat(os.fstat(descriptor), journal.stat()):
            return real(descriptor)
        written.append(descriptor)
        if len(written) > count:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor)

    return fsync


def test_a_disk_that_fills_up_ends_the_run_and_keeps_what_is_finished(walk, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_after(2, walk.parent / "walk_color" / "frames.jsonl"))
    outcome = color(walk)
    assert outcome.result.exit_code == 9
    assert isinstance(outcome.result.error, OutputError)
    assert "full" in outcome.result.error.message
    monkeypatch.undo()
    out = outcome.plans[0].out
    assert len(outcome.pictures()) == 2
    assert not list(out.glob(".*"))
    assert [record.status for record in read_records(out)] == ["written", "written"]
    again = color(walk)
    assert again.result.totals.skipped == 2
    assert again.result.totals.written == 2


@pytest.fixture
def small_disk(tmp_path: Path):
    """A real file system of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_disk_that_is_really_full(tmp_path, small_disk):
    shot = tmp_path / "walk"
    for number in range(6):
        draw(shot / f"walk.{number:04d}.tga", number, size=(160, 100))
    draw_key(tmp_path / "key.png")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(290_000))
    outcome = color(shot, out=small_disk / "out")
    assert outcome.result.exit_code == 9
    assert "full" in outcome.result.error.message
    done = outcome.pictures()
    assert 0 < len(done) < 6
    assert not list((small_disk / "out").glob(".*"))
    ballast.unlink()
    again = color(shot, out=small_disk / "out")
    assert again.result.exit_code == 0
    assert len(again.pictures()) == 6
    assert done.items() <= again.pictures().items()
    assert not verify(small_disk / "out")


def test_a_read_only_disk_is_refused_while_planning(walk, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OutputError, match="cannot be written"):
        plan_shots(ShotRequest((str(walk),), (str(walk.parent / "key.png"),), small_disk / "out"))


def test_a_journal_that_cannot_be_opened_ends_the_run(walk):
    out = walk.parent / "walk_color"
    out.mkdir()
    (out / "frames.jsonl").mkdir()
    outcome = color(walk)
    assert outcome.result.exit_code == 9
    assert "frames.jsonl cannot be written" in outcome.result.error.message


def test_a_manifest_that_cannot_be_written_is_an_error_too(walk):
    out = walk.parent / "walk_color"
    (out / "manifest.json").mkdir(parents=True)
    outcome = color(walk)
    assert outcome.result.exit_code == 9
    assert len(outcome.pictures()) == 4
