"""Frames colored at the same time: the same bits as one after the other, and nobody notices but the clock."""

from pathlib import Path

import numpy as np
import pytest
import torch

from colorcli.errors import DeviceError
from colorcli.images import read_picture
from colorcli.loading import load_pipeline, share_processor
from colorcli.pipeline import ColorizePipeline
from colorcli.prepare.frame import prepare_frame
from colorcli.prepare.key import prepare_key
from colorcli.presets import Preset
from colorcli.shot.engine import Batch
from colorcli.variants import VARIANTS

SAMPLES = Path(__file__).parent.parent / "samples"
PRESET = Preset.model_validate({"reference": {"guidance": 2.0}, "sketch": {"guidance": 1.5}})
MINI = VARIANTS["mini"]


@pytest.fixture(scope="module")
def shot():
    """The model, four frames whose canvases differ, and the key."""
    pipeline = load_pipeline("mini", "cpu")
    paths = sorted((SAMPLES / "walk").glob("*.png"))[:4]
    frames = [prepare_frame(read_picture(path), PRESET, MINI) for path in paths]
    assert len({frame.canvas.size for frame in frames}) > 1
    return pipeline, frames, prepare_key(read_picture(SAMPLES / "walk_key.png"), PRESET, MINI)


@pytest.fixture
def one_thread():
    """torch as a process has it that shares its processor among frames."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_frames_side_by_side_have_the_bits_of_frames_alone(shot, one_thread):
    pipeline, frames, key = shot
    reference = pipeline.encode_reference(key, PRESET)
    alone = [pipeline.color([frame], reference, PRESET)[0] for frame in frames]
    pipeline.side_by_side = 3
    together = pipeline.color(frames, pipeline.encode_reference(key, PRESET), PRESET)
    pipeline.side_by_side = 1
    assert all(np.array_equal(*layers) for layers in zip(alone, together, strict=True))


def test_a_small_model_on_the_cpu_shares_the_processor_among_frames(one_thread):
    torch.set_num_threads(3)
    pipeline = share_processor(load_pipeline("mini", "cpu"))
    assert pipeline.side_by_side == 3 and torch.get_num_threads() == 1
    assert pipeline.describe()["side_by_side"] == "3"


def test_a_compiled_network_is_not_shared_among_frames(shot, one_thread):
    torch.set_num_threads(3)
    compiled = ColorizePipeline(**shot[0].components)
    compiled.compile_network(True)
    assert share_processor(compiled).side_by_side == 1 and torch.get_num_threads() == 3
    compiled.compile_network(False)


class Crowded(ColorizePipeline):
    """Has room for one frame at a time."""

    inside = 0

    def _color(self, frames, reference, preset, before=None, decided=()):
        self.inside += 1
        if self.inside > 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")
        found = super()._color(frames, reference, preset, before, decided)
        self.inside -= 1
        return found


def test_without_room_for_several_the_shot_is_told_to_try_fewer(shot, one_thread):
    pipeline, frames, key = shot
    crowded = Crowded(**pipeline.components)
    reference = crowded.encode_reference(key, PRESET)
    crowded.side_by_side = 2
    with pytest.raises(torch.OutOfMemoryError):
        crowded.color(frames[:2], reference, PRESET)
    with pytest.raises(DeviceError, match="canvas"):
        crowded.color(frames[:1], reference, PRESET)


class Says:
    def __init__(self, **said: str) -> None:
        self.said = said

    def describe(self) -> dict[str, str]:
        return self.said


def test_a_shot_colors_as_many_at_once_as_the_engine_does_side_by_side():
    batch = Batch(1)
    assert batch.settle(Says(side_by_side="4")) == 4 and batch.any_size
    batch.halve(4)
    assert batch.settle(Says(side_by_side="4")) == 2
    assert Batch(None).settle(Says(frames="8", side_by_side="1")) == 8
    assert not Batch(2).any_size and Batch(2).settle(Says(frames="8")) == 2
    single = Batch(4, single_file=True)
    assert single.settle(Says(side_by_side="4")) == 1
