"""What becomes of a shot when memory runs out, and what its manifest says of memory."""

import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from colorcli.errors import DeviceError
from colorcli.images import Float
from colorcli.prepare.frame import PreparedFrame
from colorcli.prepare.key import PreparedKey
from colorcli.presets import Preset
from colorcli.shot.manifest import Manifest, RunEntry, read_manifest
from tests.shot.studio import FakeColorizer, color, draw, draw_key

ON_CARD = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
IN_COMPUTER = RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory")


class SmallCard(FakeColorizer):
    """Has room for a few frames at once."""

    def __init__(self, room: int, error: Exception = ON_CARD, wants: int = 1) -> None:
        super().__init__()
        self.room, self.error, self.wants = room, error, wants
        self.batches: list[int] = []
        self.profile = "12g"

    def color(self, frames: Sequence[PreparedFrame], reference: Float, preset: Preset) -> list[Float]:
        self.batches.append(len(frames))
        if len(frames) > self.room:
            raise self.error
        return super().color(frames, reference, preset)

    def describe(self) -> dict[str, str]:
        return {"device": "a small card", "precision": "fp16", "memory": self.profile, "frames": str(self.wants)}


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    for number in range(1, 13):
        draw(tmp_path / "walk" / f"walk.{number:04d}.png", number)
    draw_key(tmp_path / "key.png")
    return tmp_path / "walk"


@pytest.mark.parametrize("error", [ON_CARD, IN_COMPUTER], ids=["card", "computer"])
def test_without_memory_for_a_batch_half_of_it_goes_on_with_the_same_frames(walk: Path, error: Exception) -> None:
    card = SmallCard(2, error)
    outcome = color(walk, colorizer=card, at_once=8)
    assert outcome.result.exit_code == 0 and len(outcome.colored) == 12
    settled = card.batches.index(2)
    assert max(card.batches[settled:]) == 2          # kept for the rest of the shot
    assert card.batches[:settled] == [8, 4]
    assert outcome.pictures() == color(walk, out=walk.parent / "alone").pictures()


def test_the_smaller_batch_is_said_once_and_recorded(walk: Path) -> None:
    outcome = color(walk, colorizer=SmallCard(1), at_once=4)
    assert len([text for text in outcome.listener.warnings if "memory" in text]) == 1
    (run,) = read_manifest(outcome.plans[0].out).runs
    assert run.batch == 1
    assert run.notes[-1] == "batch halved to 1 after running out of memory"
    assert (run.device, run.precision, run.memory) == ("a small card", "fp16", "12g")


def test_a_frame_that_does_not_fit_alone_ends_the_run_and_says_what_would(walk: Path) -> None:
    outcome = color(walk, colorizer=SmallCard(0), at_once=4)
    error = outcome.result.error
    assert outcome.result.exit_code == 6 and isinstance(error, DeviceError)
    frame = outcome.plans[0].jobs[0].size
    assert frame is not None and f"frame of {frame[0]}x{frame[1]} on a canvas of " in error.message
    assert "--memory 8g" in str(error.hint) and "--set canvas.area=" in str(error.hint)


def test_nobody_is_told_to_set_what_is_set_already(walk: Path) -> None:
    card = SmallCard(0)
    card.profile = "8g fp8"
    error = color(walk, colorizer=card).result.error
    assert error is not None and "--memory" not in str(error.hint) and "close other programs" in str(error.hint)


def test_frames_that_were_colored_before_memory_ran_out_stay(walk: Path) -> None:
    card = SmallCard(1)

    def fill(count: int) -> None:
        if count >= 5:
            card.room = 0
            raise ON_CARD

    card.before_color = fill
    outcome = color(walk, colorizer=card)
    assert outcome.result.exit_code == 6 and len(outcome.pictures()) == 5
    assert color(walk).result.totals.skipped == 5


def test_a_key_that_does_not_fit_is_no_bug(walk: Path) -> None:
    class Full(FakeColorizer):
        def encode_reference(self, key: object, preset: Preset) -> Float:
            raise ON_CARD

    result = color(walk, colorizer=Full()).result
    assert result.exit_code == 6 and "key" in str(result.error)


def test_a_batch_left_to_the_machine_is_as_large_as_it_says(walk: Path) -> None:
    card = SmallCard(64, wants=6)
    outcome = color(walk, colorizer=card, at_once=None)
    assert card.batches == [6, 6]
    assert read_manifest(outcome.plans[0].out).runs[0].batch == 6


def test_a_frame_at_fault_is_not_taken_for_want_of_memory(walk: Path) -> None:
    outcome = color(walk, colorizer=SmallCard(0, ValueError("a wrong turn")), at_once=3)
    assert outcome.result.totals.failed == 12 and not outcome.listener.warnings


def test_many_keys_do_not_fill_the_device(tmp_path: Path) -> None:
    for number in range(7):
        draw(tmp_path / f"cut{number}" / "a.0001.png")
        draw_key(tmp_path / "keys" / f"cut{number}.png", (0.1 * number, 0.3, 0.2))
    read: list[weakref.ref[Float]] = []
    alive: list[int] = []

    class Watched(FakeColorizer):
        def encode_reference(self, key: PreparedKey, preset: Preset) -> Float:
            found = np.array(super().encode_reference(key, preset))
            read.append(weakref.ref(found))
            alive.append(sum(one() is not None for one in read))
            return found

    shots = [tmp_path / f"cut{number}" for number in range(7)]
    assert color(shots, ref=str(tmp_path / "keys" / "{shot}.png"), colorizer=Watched()).result.exit_code == 0
    assert len(alive) == 7 and max(alive) <= 4


def test_a_manifest_of_before_is_still_read() -> None:
    old = RunEntry.model_validate({"journal": "frames.jsonl", "started": "", "finished": "", "exit_code": 0})
    assert (old.precision, old.memory, old.batch, old.notes) == (None, None, None, ())
    assert Manifest(shot="../walk", runs=(old,)).runs[0].batch is None
