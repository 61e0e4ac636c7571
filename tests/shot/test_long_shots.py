"""A long shot takes no more memory than a short one, and no more work than its drawings are worth."""

import shutil
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from colorcli.images import Float, Picture
from colorcli.model.build import Components
from colorcli.pipeline import ColorizePipeline
from colorcli.prepare.frame import PreparedFrame
from colorcli.presets import Preset, load_preset
from colorcli.shot import finishing, looking
from tests import tiny_mini
from tests.shot.studio import FakeColorizer, color, draw_key, drawing

SMALL = ("canvas.size=[128, 128]", "masks.source=none")
FRAMES, HELD = 2000, 4


class Census:
    """Counts what is alive of all that it was ever told of."""

    def __init__(self) -> None:
        self.alive = self.most = self.ever = 0
        self._watched: list[Any] = []

    def count(self, array: Float) -> None:
        self.alive += 1
        self.ever += 1
        self.most = max(self.most, self.alive)
        self._watched.append(weakref.ref(array, self._died))

    def _died(self, _: object) -> None:
        self.alive -= 1


class Watched(FakeColorizer):
    """Tells a census of every frame that it is given and of every layer that it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.frames, self.layers = Census(), Census()

    def color(self, frames: Sequence[PreparedFrame], reference: Float, preset: Preset, **decided: Any) -> list[Float]:
        layers = super().color(frames, reference, preset, **decided)
        for frame, layer in zip(frames, layers, strict=True):
            self.frames.count(frame.ink_canvas)
            self.layers.count(layer)
        return layers


def write_held_shot(folder: Path, frames: int, held: int) -> Path:
    """Draw a shot of tiny frames, each drawing standing for `held` of them, and its key."""
    folder.mkdir()
    paper = np.round(255 * drawing(1, (48, 32))).astype(np.uint8)
    for number in range(0, frames, held):
        paper[1, 1], paper[1, 2] = divmod(number, 256)
        first = folder / f"walk.{number + 1:04d}.png"
        cv2.imwrite(str(first), paper)
        for again in range(1, held):
            shutil.copyfile(first, folder / f"walk.{number + again + 1:04d}.png")
    draw_key(folder.parent / "key.png")
    return folder


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> Census:
    """Every frame that a `Looker` decodes; keys are read elsewhere."""
    census, read = Census(), looking.read_picture

    def counted(path: Path, *limits: int) -> Picture:
        picture = read(path, *limits)
        census.count(picture.color)
        return picture

    monkeypatch.setattr(looking, "read_picture", counted)
    return census


def test_two_thousand_frames_take_no_more_memory_than_a_few(tmp_path: Path, pictures: Census) -> None:
    shot, colorizer = write_held_shot(tmp_path / "walk", FRAMES, HELD), Watched()
    outcome = color(shot, colorizer=colorizer, preset=load_preset("cel", SMALL))
    assert (outcome.result.totals.written, outcome.result.totals.held) == (FRAMES // HELD, FRAMES - FRAMES // HELD)
    assert pictures.ever <= 2 * FRAMES // HELD   # of the four files of a drawing two may be opened at once
    # Two threads read and two write: each may have two frames ahead of it.
    assert pictures.most <= 16 and colorizer.frames.most <= 16 and colorizer.layers.most <= 8
    assert pictures.alive <= 1 and colorizer.frames.alive == colorizer.layers.alive == 0


def test_a_slow_disk_holds_the_reading_back(
    tmp_path: Path, pictures: Census, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = slowed(finishing.write_atomically, seconds=0.01)
    monkeypatch.setattr(finishing, "write_atomically", slow)
    shot = write_held_shot(tmp_path / "walk", 120, 60)
    outcome = color(shot, colorizer=Watched(), preset=load_preset("cel", SMALL))
    assert outcome.result.totals.held == 118
    assert pictures.most <= 16


def slowed(call: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """Give the same function, which takes its time."""

    def wait(*arguments: Any) -> Any:
        time.sleep(seconds)
        return call(*arguments)

    return wait


def test_a_shot_on_twos_asks_the_network_for_every_drawing_once_and_for_the_key_once(tmp_path: Path) -> None:
    outcome = color(write_held_shot(tmp_path / "walk", 12, 2), preset=load_preset("cel", SMALL))
    assert outcome.colorizer.asked == 6
    assert outcome.colorizer.encoded == 1
    assert len(outcome.pictures()) == 12


def test_every_network_of_mini_runs_on_twos_as_often_as_on_ones_and_reads_the_key_once(tmp_path: Path) -> None:
    made = tiny_mini.components(matcher=True)
    pipeline = ColorizePipeline(**{part.name: getattr(made, part.name) for part in fields(Components)})
    calls: Counter[str] = Counter()
    for name in ("projection", "tagger", "sketch_encoder", "unet", "matcher"):
        network = getattr(pipeline, name).eval()
        network.register_forward_hook(lambda *_, name=name: calls.update([name]))
    counted = {}
    for held in (1, 2):
        calls.clear()
        folder = tmp_path / str(held)
        folder.mkdir()
        outcome = color(
            write_held_shot(folder / "walk", 3 * held, held), colorizer=pipeline, preset=load_preset("cel", SMALL)
        )
        assert outcome.result.totals.written == 3
        assert all("unsure" in record.checks for record in outcome.listener.records)
        counted[held] = dict(calls)
    assert counted[1] == counted[2]
    assert counted[1]["matcher"] == 3                  # one ballot a drawing, which its doubts are read from, too
    assert counted[1]["projection"] == 1               # the key's tokens
    assert counted[1]["sketch_encoder"] == 1 + 3       # the key's lines, and each drawing's
    assert counted[1]["unet"] == 1 + 3 * 2             # the key's parts, each drawing's parts and its one step
