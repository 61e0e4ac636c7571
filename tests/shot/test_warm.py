"""Warm starts: a frame that begins from the one before it comes out the same however the shot is cut up."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from colorcli.errors import DeviceError
from colorcli.images import read_picture
from colorcli.presets import SamplingSettings, WarmStartSettings
from colorcli.shot.drawings import Drawing, Drawings
from colorcli.shot.manifest import read_records
from colorcli.shot.plan import FrameJob
from colorcli.shot.warm import Chains
from colorcli.train.evaluation.evaluate import evaluate_shots
from colorcli.variants import VARIANTS
from tests.shot.studio import FakeColorizer, Outcome, as_painted, cannot_color, color, draw, draw_shot

EVERY = 4
WARM = as_painted(
    sampling=SamplingSettings(start="noise"), warm_start=WarmStartSettings(on=True, every=EVERY)
)
COLD = WARM.model_copy(update={"warm_start": WarmStartSettings()})


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    return draw_shot(tmp_path / "walk", range(1, 11))


@pytest.fixture
def whole(walk: Path) -> dict[str, bytes]:
    """What the shot looks like when it is colored in one go."""
    return color(walk, preset=WARM, out=walk.parent / "whole").pixels()


def fingerprints(outcome: Outcome) -> dict[str, str | None]:
    return {record.frame: record.fingerprint for record in read_records(outcome.plans[0].out)}


def numbers(outcome: Outcome) -> list[int]:
    return [int(name[-4:]) for name in outcome.colored]


def test_a_frame_shows_what_went_before_and_begins_anew_every_fourth_number(walk, whole):
    cold = color(walk, preset=COLD, out=walk.parent / "cold").pixels()
    begins_anew = [name for name in whole if whole[name] == cold[name]]
    assert begins_anew == ["walk.0001.png", "walk.0004.png", "walk.0008.png"]


def test_each_frame_is_half_itself_and_half_the_one_before(walk, whole):
    def shown(folder: str, number: int) -> np.ndarray:
        return read_picture(walk.parent / folder / f"walk.{number:04d}.png").color

    color(walk, preset=COLD, out=walk.parent / "cold")
    expected = shown("cold", 4)
    for number in (5, 6, 7):
        expected = (shown("cold", number) + expected) / 2
        assert np.abs(shown("whole", number) - expected).max() < 2 / 255


@pytest.mark.parametrize("count", [3, 10])
def test_any_chunks_give_the_same_pictures_and_fingerprints(walk, whole, count):
    parts = walk.parent / "parts"
    for index in reversed(range(1, count + 1)):
        part = color(walk, preset=WARM, out=parts, chunk=f"{index}/{count}")
    assert part.pixels() == whole
    assert fingerprints(part) == {
        record.frame: record.fingerprint for record in read_records(walk.parent / "whole")
    }


def test_a_frame_alone_is_made_by_way_of_those_before_it_which_are_not_written(walk, whole):
    alone = color(walk, preset=WARM, frames="7")
    assert alone.pixels() == {"walk.0007.png": whole["walk.0007.png"]}
    assert alone.colorizer.colored == 4  # 4, 5, 6 and 7


def test_a_frame_that_begins_anew_needs_no_other(walk, whole):
    alone = color(walk, preset=WARM, frames="8")
    assert alone.colorizer.colored == 1
    assert alone.pixels() == {"walk.0008.png": whole["walk.0008.png"]}


def test_deleted_pictures_come_back_as_they_were(walk, whole):
    out = walk.parent / "whole"
    for number in (2, 3, 6, 10):
        (out / f"walk.{number:04d}.png").unlink()
    again = color(walk, preset=WARM, out=out)
    assert numbers(again) == [2, 3, 6, 10]
    assert again.pixels() == whole
    assert color(walk, preset=WARM, out=out).loads == 0


def test_a_changed_drawing_changes_those_that_begin_from_it_and_no_others(walk, whole):
    draw(walk / "walk.0005.png", 40)
    again = color(walk, preset=WARM, out=walk.parent / "whole")
    assert numbers(again) == [5, 6, 7]
    alone = color(walk, preset=WARM, out=walk.parent / "alone", frames="7")
    assert alone.pixels()["walk.0007.png"] == again.pixels()["walk.0007.png"] != whole["walk.0007.png"]


def test_a_hold_is_one_drawing_also_where_a_new_stretch_begins(walk):
    for number in (3, 4, 5):
        shutil.copy(walk / "walk.0002.png", walk / f"walk.{number:04d}.png")
    outcome = color(walk, preset=WARM, out=walk.parent / "whole")
    pictures = outcome.pixels()
    assert len({pictures[f"walk.{number:04d}.png"] for number in (2, 3, 4, 5)}) == 1
    assert outcome.colorizer.colored == 7
    # 6 is the first drawing of the new stretch, so it begins anew.
    cold = color(walk, preset=COLD, out=walk.parent / "cold").pixels()
    assert pictures["walk.0006.png"] == cold["walk.0006.png"]
    for number in (4, 7):
        alone = color(walk, preset=WARM, out=walk.parent / f"alone{number}", frames=str(number))
        assert alone.pixels()[f"walk.{number:04d}.png"] == pictures[f"walk.{number:04d}.png"]


def test_a_walk_cycle_that_comes_back_is_the_same_only_if_what_went_before_is(walk):
    for number in (4, 5, 6, 7):  # 4-7 and 8-10 are the same drawings in the same order
        shutil.copy(walk / f"walk.{number:04d}.png", walk / f"walk.{number + 4:04d}.png")
    outcome = color(walk, preset=WARM, out=walk.parent / "whole")
    status = outcome.listener.status()
    assert [status[f"walk.{number:04d}"] for number in (8, 9, 10, 11)] == ["held"] * 4
    draw(walk / "walk.0005.png", 50)
    again = color(walk, preset=WARM, out=walk.parent / "whole").listener.status()
    assert [again[f"walk.{number:04d}"] for number in (8, 9, 10, 11)] == ["skipped"] * 4


def test_after_a_gap_a_frame_begins_anew(walk):
    (walk / "walk.0006.png").unlink()
    outcome = color(walk, preset=WARM, out=walk.parent / "whole")
    cold = color(walk, preset=COLD, out=walk.parent / "cold").pixels()
    assert outcome.pixels()["walk.0007.png"] == cold["walk.0007.png"]


def test_a_shot_numbered_on_twos_has_no_gaps(tmp_path):
    walk = draw_shot(tmp_path / "walk", range(4, 20, 2))
    outcome = color(walk, preset=WARM.model_copy(update={"warm_start": WarmStartSettings(on=True, every=8)}))
    cold = color(walk, preset=COLD, out=tmp_path / "cold").pixels()
    made = outcome.pixels()
    assert [name for name in made if made[name] == cold[name]] == ["walk.0004.png", "walk.0008.png", "walk.0016.png"]


@pytest.mark.parametrize("broken", ["torn", "size", "mask"])
def test_after_a_frame_that_cannot_be_read_or_is_of_another_size_it_begins_anew(walk, broken):
    asked = {}
    if broken == "torn":
        (walk / "walk.0005.png").write_bytes(b"no picture")
    elif broken == "size":
        draw(walk / "walk.0005.png", 5, (128, 64))
    else:
        draw(walk.parent / "masks" / "walk.0005.png", 5, (48, 32))
        asked = {"masks": (walk.parent / "masks",)}
    outcome = color(walk, preset=WARM, out=walk.parent / "whole", **asked)
    cold = color(walk, preset=COLD, out=walk.parent / "cold", **asked).pixels()
    assert outcome.pixels()["walk.0006.png"] == cold["walk.0006.png"]
    alone = color(walk, preset=WARM, out=walk.parent / "alone", frames="7", **asked)
    assert alone.pixels()["walk.0007.png"] == outcome.pixels()["walk.0007.png"]
    assert alone.colorizer.colored == 2
    again = color(walk, preset=WARM, out=walk.parent / "whole", **asked)
    assert again.colorizer.colored == 0


def test_after_a_frame_that_failed_once_the_next_is_made_again_when_it_did_not(walk, whole):
    out = walk.parent / "out"
    first = color(walk, preset=WARM, out=out, colorizer=FakeColorizer(before_color=cannot_color(4)))
    assert first.result.exit_code == 7
    cold = color(walk, preset=COLD, out=walk.parent / "cold").pixels()
    assert first.pixels()["walk.0006.png"] == cold["walk.0006.png"] != whole["walk.0006.png"]
    again = color(walk, preset=WARM, out=out)
    assert numbers(again) == [5, 6, 7]
    assert again.pixels() == whole


def test_a_hold_of_a_frame_that_failed_fails_and_those_behind_begin_anew(walk):
    shutil.copy(walk / "walk.0005.png", walk / "walk.0006.png")
    outcome = color(walk, preset=WARM, colorizer=FakeColorizer(before_color=cannot_color(4)))
    status = outcome.listener.status()
    assert (status["walk.0005"], status["walk.0006"], status["walk.0007"]) == ("failed", "failed", "written")
    cold = color(walk, preset=COLD, out=walk.parent / "cold").pixels()
    assert outcome.pixels()["walk.0007.png"] == cold["walk.0007.png"]


def test_held_frames_behind_one_that_began_anew_after_a_failure_are_made_again_too(walk, whole):
    shutil.copy(walk / "walk.0006.png", walk / "walk.0007.png")
    out = walk.parent / "out"
    color(walk, preset=WARM, out=out, colorizer=FakeColorizer(before_color=cannot_color(4)))
    again = color(walk, preset=WARM, out=out)
    assert again.pixels()["walk.0006.png"] == again.pixels()["walk.0007.png"] == whole["walk.0006.png"]


def test_frames_come_in_single_file_and_who_asked_for_a_batch_is_told(walk, whole):
    out = walk.parent / "batch"
    outcome = color(walk, preset=WARM, out=out, at_once=4)
    assert outcome.pixels() == whole
    assert outcome.listener.warnings == ["frames that begin from each other are colored one at a time, not 4 together"]
    assert not color(walk, preset=WARM, out=out).listener.warnings


def test_pictures_without_a_number_begin_from_noise(tmp_path):
    for number, name in enumerate(("anna", "bert"), 1):
        draw(tmp_path / "heads" / f"{name}.png", number)
    draw_shot(tmp_path / "walk", [1])
    warm = color(tmp_path / "heads", preset=WARM, out=tmp_path / "warm").pixels()
    assert warm == color(tmp_path / "heads", preset=COLD, out=tmp_path / "cold").pixels()


def test_an_evaluation_colors_as_the_shot_is_colored(walk, whole):
    shutil.copytree(walk, walk.parent / "known" / "line")
    shutil.copytree(walk, walk.parent / "known" / "color")
    shutil.copy(walk.parent / "key.png", walk.parent / "known" / "key.png")
    made = walk.parent / "made"
    evaluate_shots(walk.parent / "known", WARM, colorizer=FakeColorizer(), variant=VARIANTS["mini"], out=made)
    pictures = {path.name: read_picture(path).color.tobytes() for path in (made / "known--known").iterdir()}
    assert pictures == whole


def test_a_frame_to_begin_from_that_does_not_fit_ends_the_run_and_colors_nothing_from_noise_instead(walk):
    def full(count: int) -> None:
        if count == 1:  # 4 is colored, 5 is not
            raise torch.OutOfMemoryError("CUDA out of memory")

    outcome = color(walk, preset=WARM, frames="7", colorizer=FakeColorizer(before_color=full))
    assert outcome.result.exit_code == DeviceError.exit_code
    assert not outcome.pixels()


def test_a_hold_of_a_thousand_frames_is_walked_back_once_and_not_for_each_of_them():
    asked = 0

    class Counted(Drawings):
        def of(self, job: FrameJob) -> Drawing:
            nonlocal asked
            asked += 1
            return Drawing("the same" if job.number else "another", (), (96, 64))

    chains = Chains("settings", "key", EVERY, Counted({}))
    before, starts = None, []
    for number in range(1001):
        path = Path(f"walk.{number:04d}.png")
        before = FrameJob(number, "walk.", path, path, before=before)
        starts.append(chains.before(before))
    assert len(set(starts[1:])) == 1 and starts[0] is None and starts[1] is not None
    assert asked < 20 * 1001
