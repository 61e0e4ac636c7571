"""A shot comes out bit by bit the same, however it is split, in what order, by how many, and after whatever kills."""

import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from colorcli.cli.main import main
from colorcli.shot.manifest import read_records
from tests.shot.same_files import SMALL, WALK, Wanted, assert_same, command, files_in, plain_run, process
from tests.shot.studio import draw

STEADY = ("--steady",)
WARM = ("--set", "warm_start.on=true", "--set", "sampling.start=noise", "--set", "canvas.crop=frame")
SPLITS = {"chunks of 1": 11, "chunks of 3": 4, "chunks of 7": 2}   # of 11 frames, into how many parts


@pytest.fixture(scope="module", params=[STEADY, WARM], ids=["steady", "warm"])
def dependent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Wanted:
    """Frames that depend on those around or before them."""
    return plain_run(tmp_path_factory.mktemp("same"), *request.param)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Wanted:
    """Frames on their own."""
    return plain_run(tmp_path_factory.mktemp("same"))


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wanted]:
    """The model that is shipped, loaded once."""
    from colorcli.cli import render

    loaded = render.load_engine("mini", "cpu", "auto")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("colorcli.cli.render.load_engine", lambda *_, **__: loaded)
        yield plain_run(tmp_path_factory.mktemp("same"), engine="torch")


@pytest.mark.parametrize("parts", SPLITS.values(), ids=SPLITS)
def test_in_parts_in_any_order(alone: Wanted, tmp_path: Path, parts: int) -> None:
    in_parts(alone, tmp_path, parts)


@pytest.mark.parametrize("parts", [3, 11])
def test_frames_that_depend_on_others_in_parts_in_any_order(dependent: Wanted, tmp_path: Path, parts: int) -> None:
    in_parts(dependent, tmp_path, parts)


def in_parts(wanted: Wanted, out: Path, parts: int) -> None:
    order = list(range(1, parts + 1))
    random.Random(parts).shuffle(order)
    for index in order:
        assert main(command(wanted, out, "--chunk", f"{index}/{parts}")) == 0
    assert_same(wanted, out)


def test_frame_by_frame_backwards(alone: Wanted, tmp_path: Path) -> None:
    for number in sorted(WALK, reverse=True):
        assert main(command(alone, tmp_path, "--frames", str(number))) == 0
    assert_same(alone, tmp_path)


def test_two_processes_at_once(alone: Wanted, tmp_path: Path) -> None:
    two_at_once(alone, tmp_path)


def test_frames_that_depend_on_others_by_two_processes_at_once(dependent: Wanted, tmp_path: Path) -> None:
    two_at_once(dependent, tmp_path)


def two_at_once(wanted: Wanted, out: Path) -> None:
    both = [process(wanted, out) for _ in range(2)]
    said = [each.communicate(timeout=60)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert_same(wanted, out)


def test_finished_after_kills(alone: Wanted, tmp_path: Path) -> None:
    kills = 0
    for signal_sent, frames in ((signal.SIGKILL, 2), (signal.SIGTERM, 4), (signal.SIGKILL, 6), (signal.SIGINT, 8)):
        running = process(alone, tmp_path)
        while running.poll() is None and len(list(tmp_path.glob("[a-z]*.png"))) < frames:
            time.sleep(0.002)
        if running.poll() is None:
            running.send_signal(signal_sent)
            kills += 1
        running.communicate(timeout=60)
    assert kills, "the process was always faster"
    finished = {record.output for record in read_records(tmp_path) if record.output_sha256}
    assert main(command(alone, tmp_path)) == 0
    assert_same(alone, tmp_path)
    assert main(["manifest", "verify", str(tmp_path)]) == 0
    again = {record.output for record in read_records(tmp_path) if record.status == "written"}
    assert len(finished) >= 2 and not finished & again, "what was finished before a kill is colored once more"


@pytest.mark.parametrize("options", [["--batch", "4"], ["--batch", "auto"], ["--overwrite"]], ids=" ".join)
def test_with_options_that_are_not_about_the_picture(alone: Wanted, tmp_path: Path, options: list[str]) -> None:
    for _ in range(2):
        assert main(command(alone, tmp_path, *options)) == 0
    assert_same(alone, tmp_path)


LAYERED = "exr-half --layers all --layers-as sequences,exr"


@pytest.mark.parametrize("kind", ["exr-half", "tiff16", "tga", "jpeg", LAYERED])
def test_in_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    wanted = plain_run(tmp_path, "--format", *kind.split())
    time.sleep(1.1)   # what is written into files as their time has whole seconds
    for index in (2, 1):
        assert main(command(wanted, tmp_path / "parts", "--chunk", f"{index}/2")) == 0
    assert_same(wanted, tmp_path / "parts")


def test_with_the_model_in_chunks_of_three_on_another_number_of_threads(mini: Wanted, tmp_path: Path) -> None:
    import torch

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        for index in (4, 2, 1, 3):
            assert main(command(mini, tmp_path, "--chunk", f"{index}/4")) == 0
    finally:
        torch.set_num_threads(threads)
    assert_same(mini, tmp_path)


def test_noise_is_of_what_is_drawn_and_not_of_the_place_in_the_shot(mini: Wanted, tmp_path: Path) -> None:
    """The same drawings under other numbers, in the other direction, beside others."""
    shot = tmp_path / "other"
    renumbered = {number: 100 - number for number in WALK}
    for number, drawing in WALK.items():
        if number not in (2, 6, 10):   # those with a mask or a size of their own
            draw(shot / f"walk.{renumbered[number]:04d}.png", drawing)
    draw(shot / "walk.0101.png", 33)
    noisy = ["--set", "sampling.start=noise", "--set", "sampling.steps=2", *SMALL]
    line = [str(shot), "--ref", str(mini.key), "-q", *noisy]
    assert main([*line, "-o", str(tmp_path / "out")]) == 0
    assert main([*command(mini, tmp_path / "plain"), *noisy]) == 0
    plain, found = files_in(tmp_path / "plain"), files_in(tmp_path / "out")
    same = [(number, there) for number, there in renumbered.items() if number not in (2, 6, 10)]
    assert [plain[f"walk.{number:04d}.png"] for number, _ in same] == [found[f"walk.{n:04d}.png"] for _, n in same]
    other_seed = [*line, "-o", str(tmp_path / "seed"), "--set", "sampling.seed=8"]
    assert main(other_seed) == 0
    assert files_in(tmp_path / "seed")["walk.0099.png"] != found["walk.0099.png"], "this preset draws no noise at all"


def test_a_file_that_differs_in_one_byte_is_told(alone: Wanted, tmp_path: Path) -> None:
    shutil.copytree(alone.shot.parent / "plain", tmp_path / "out")
    assert_same(alone, tmp_path / "out")
    changed = tmp_path / "out" / "walk.0001.png"
    changed.write_bytes(changed.read_bytes() + b"\0")
    with pytest.raises(AssertionError, match=r"the pixels of walk\.0001\.png are the same"):
        assert_same(alone, tmp_path / "out")


def test_an_interpreter_with_another_hash_seed_gives_the_same(alone: Wanted, tmp_path: Path) -> None:
    for number in (1, 2):
        running = process(alone, tmp_path / str(number), hash_seed=number)
        assert running.wait(60) == 0
        assert_same(alone, tmp_path / str(number))
