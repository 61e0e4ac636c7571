"""Steady colors: the drawings around a frame have a say, and it comes out the same however the shot is cut up."""

import shutil
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import pytest

from colorcli.images import read_picture
from colorcli.presets import SamplingSettings, SteadySettings
from colorcli.shot.manifest import read_records
from tests.shot.studio import FakeColorizer, as_painted, color, draw, draw_shot

REACH = 2
STEADY = as_painted(
    sampling=SamplingSettings(start="match"), steady=SteadySettings(on=True, reach=REACH)
)
ALONE = STEADY.model_copy(update={"steady": SteadySettings()})


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    return draw_shot(tmp_path / "walk", range(1, 11))


@pytest.fixture
def whole(walk: Path) -> dict[str, bytes]:
    """What the shot looks like when it is colored in one go."""
    return color(walk, preset=STEADY, out=walk.parent / "whole").pictures()


def tops(walk: Path, numbers: range) -> list[float]:
    """How far down the ink of some frames begins, 0..1."""
    inks = [read_picture(walk / f"walk.{number:04d}.png").color.min(axis=2) < 0.5 for number in numbers]
    return [float(np.flatnonzero(ink.any(axis=1))[0]) / len(ink) for ink in inks]


def test_two_drawings_before_and_after_have_a_say(walk, whole):
    color(walk, preset=ALONE, out=walk.parent / "alone")
    for number, heard in ((1, range(1, 4)), (2, range(1, 5)), (5, range(3, 8)), (10, range(8, 11))):
        alone, steady = (
            read_picture(walk.parent / name / f"walk.{number:04d}.png").color for name in ("alone", "whole")
        )
        assert np.abs(steady - alone * (1 - np.mean(tops(walk, heard)))).max() < 2 / 255


class Deaf(FakeColorizer):
    """Hears its own ballot alone."""

    def decide(self, ballots, own, links):
        return super().decide([ballots[own]], 0, {})


def test_a_frame_is_told_which_ballot_is_its_own(walk):
    color(walk, preset=ALONE, out=walk.parent / "alone")
    color(walk, preset=STEADY, out=walk.parent / "deaf", colorizer=Deaf())
    for number, own in enumerate(tops(walk, range(1, 11)), 1):
        alone, deaf = (read_picture(walk.parent / name / f"walk.{number:04d}.png").color for name in ("alone", "deaf"))
        assert np.abs(deaf - alone * (1 - own)).max() < 2 / 255


@pytest.mark.parametrize("count", [3, 10])
def test_any_chunks_give_the_same_pictures_and_fingerprints(walk, whole, count):
    parts = walk.parent / "parts"
    for index in reversed(range(1, count + 1)):
        part = color(walk, preset=STEADY, out=parts, chunk=f"{index}/{count}")
    assert part.pictures() == whole
    prints = [
        {record.frame: record.fingerprint for record in read_records(folder)}
        for folder in (parts, walk.parent / "whole")
    ]
    assert prints[0] == prints[1]


def test_each_drawing_is_asked_once(walk):
    colorizer = FakeColorizer()
    color(walk, preset=STEADY, colorizer=colorizer)
    assert (colorizer.balloted, colorizer.colored) == (10, 10)


def test_the_drawings_around_an_asked_frame_are_heard_but_not_written(walk, whole):
    colorizer = FakeColorizer()
    alone = color(walk, preset=STEADY, colorizer=colorizer, frames="5", out=walk.parent / "alone")
    assert (colorizer.balloted, colorizer.colored) == (2 * REACH + 1, 1)
    assert alone.pictures() == {"walk.0005.png": whole["walk.0005.png"]}


def test_a_second_run_colors_nothing(walk, whole):
    again = color(walk, preset=STEADY, out=walk.parent / "whole")
    assert again.colored == []


def test_another_drawing_colors_those_around_it_anew(walk, whole):
    draw(walk / "walk.0005.png", 50)
    again = color(walk, preset=STEADY, out=walk.parent / "whole")
    assert sorted(again.colored) == [f"walk.{number:04d}" for number in range(3, 8)]
    fresh = color(walk, preset=STEADY, out=walk.parent / "fresh")
    assert again.pictures() == fresh.pictures()


def test_a_hold_is_heard_once_and_colored_once(walk, whole):
    for number in range(10, 5, -1):
        shutil.move(walk / f"walk.{number:04d}.png", walk / f"walk.{number + 2:04d}.png")
    for number in (6, 7):
        shutil.copy(walk / "walk.0005.png", walk / f"walk.{number:04d}.png")
    colorizer = FakeColorizer()
    held = color(walk, preset=STEADY, colorizer=colorizer, out=walk.parent / "held").pictures()
    assert (colorizer.balloted, colorizer.colored) == (10, 10)
    assert held["walk.0005.png"] == held["walk.0006.png"] == held["walk.0007.png"] == whole["walk.0005.png"]
    assert held["walk.0012.png"] == whole["walk.0010.png"]


def test_a_drawing_that_cannot_be_read_has_no_say(walk):
    (walk / "walk.0005.png").write_bytes(b"no picture")
    broken = color(walk, preset=STEADY, out=walk.parent / "broken").pictures()
    (walk / "walk.0005.png").unlink()
    assert color(walk, preset=STEADY, out=walk.parent / "without").pictures() == broken


class Counted(FakeColorizer):
    """Counts the links that are held at the same time."""

    most = 0

    def link(self, one, other):
        held = np.array([one, other])
        self.held = getattr(self, "held", WeakValueDictionary())
        self.held[id(held)] = held
        self.most = max(self.most, len(self.held))
        return held

    def decide(self, ballots, own, links):
        return ballots[own]


def test_links_of_drawings_that_nobody_asks_for_any_more_are_let_go(tmp_path):
    colorizer = Counted()
    color(draw_shot(tmp_path / "long", range(1, 31)), preset=STEADY, colorizer=colorizer)
    assert colorizer.most <= 6 + 5 + 4 + 3 + 2 + 1, "each of seven drawings with each"


def test_near_drawings_are_linked_once(walk, whole):
    colorizer = FakeColorizer()
    color(walk, preset=STEADY, colorizer=colorizer, out=walk.parent / "linked")
    # Those of the ten are heard together that are at most four apart: two before and two after the one between.
    assert colorizer.linked == 9 + 8 + 7 + 6
