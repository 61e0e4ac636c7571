"""The pipeline in fewer bits, in strips, with parts that move, and when memory runs out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from colorcli.errors import DeviceError
from colorcli.images import read_picture
from colorcli.loading import load_pipeline
from colorcli.model.memory import PHASES, PRECISIONS, PROFILES, MemoryProfile, parts_of
from colorcli.pipeline import ColorizePipeline
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import prepare_key
from colorcli.presets import Preset
from colorcli.variants import VARIANTS
from tests import tiny_xl
from tests.away import nan_while_away

SAMPLES = Path(__file__).parent.parent / "samples"
SMALL = replace(VARIANTS["xlv2"], min_side=64)
BACKGROUND: dict[str, Any] = {"split": True}


def settings(**groups: dict[str, Any]) -> Preset:
    quick = {
        "canvas": {"area": 128 * 128, "crop": "frame"},
        "reference": {"guidance": 2.0},
        "sampling": {"sampler": "euler", "steps": 2, "start": "noise"},
    }
    return Preset.model_validate({**quick, **groups})


@pytest.fixture(scope="module")
def frame() -> PreparedFrame:
    return prepare_frame(read_picture(min((SAMPLES / "walk").glob("*.png"))), settings(), SMALL)


def colored(pipe: ColorizePipeline, frame: PreparedFrame, preset: Preset) -> np.ndarray:
    key = prepare_key(read_picture(SAMPLES / "walk_key.png"), preset, SMALL)
    return pipe.color([frame], pipe.encode_reference(key, preset), preset)[0]


def pipeline(profile: MemoryProfile | None = None) -> ColorizePipeline:
    pipe = tiny_xl.pipeline(adapter=True)
    return pipe if profile is None else pipe.keep_within(profile, "cpu")


@pytest.fixture(scope="module")
def exact(frame) -> np.ndarray:
    return colored(pipeline(), frame, settings(background=BACKGROUND))


@pytest.mark.parametrize(("storage", "least"), [("compute", 30), ("fp8", 15)])
def test_in_fewer_bits_the_picture_is_the_same_but_for_its_last_bits(frame, exact, storage, least):
    """Random weights, so nothing can be said of what is seen: 30 dB is an error of one part in thirty."""
    profile = replace(PROFILES["8g"], budget=0, precision=PRECISIONS["bf16"], storage=storage)
    found = colored(pipeline(profile), frame, settings(background=BACKGROUND))
    assert found.dtype == np.float32
    assert 10 * np.log10(1 / np.square(found - exact).mean()) > least
    assert not np.array_equal(found, exact)


@pytest.mark.parametrize("changes", [{"strips": True}, {"keep_projected": False}, {"budget": 0}], ids=str)
def test_how_memory_is_kept_changes_nothing_in_the_picture(frame, exact, changes):
    profile = replace(PROFILES["full"], **changes)
    found = colored(pipeline(profile), frame, settings(background=BACKGROUND))
    assert np.abs(found - exact).max() < 1e-5


def test_every_phase_finds_its_parts_there(frame):
    pipe = pipeline()
    networks = nan_while_away(pipe)
    for groups in ({}, {"background": BACKGROUND}, {"injection": {"on": True}, "background": {"reference_net": False}}):
        assert np.isfinite(colored(pipe, frame, settings(**groups))).all(), groups
    assert {part for phase in PHASES for part in parts_of(phase, networks)} == networks.keys()


class Crowded(ColorizePipeline):
    """A pipeline on a device that has room for some frames only; it colors them as a GPU would, together."""

    room = 1

    def _color(self, frames, reference, preset, **more):
        if len(frames) > self.room:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")
        return super()._color(frames, reference, preset, **more)


def test_one_frame_that_does_not_fit_is_told_with_its_size_and_what_to_do(frame):
    pipe = Crowded(**tiny_xl.components())
    pipe.room = 0
    with pytest.raises(DeviceError, match=r"frame of \d+x\d+ on a canvas of \d+x\d+") as caught:
        colored(pipe, frame, settings())
    assert caught.value.hint is not None and "canvas.area=" in caught.value.hint
    assert "--memory" not in caught.value.hint   # there is nowhere to move to from the CPU


def test_a_mistake_is_not_taken_for_want_of_memory(frame):
    pipe = Crowded(**tiny_xl.components())
    pipe.unet.conv_in = torch.nn.Conv2d(5, 32, 3)
    with pytest.raises(RuntimeError, match="channels"):
        colored(pipe, frame, settings())


def test_mini_is_loaded_in_the_precision_that_is_asked_for():
    assert {p.dtype for p in load_pipeline("mini", "cpu").unet.parameters()} == {torch.float32}
    pipe = load_pipeline("mini", "cpu", precision="bf16", memory="8g")
    assert pipe.unet.dtype == torch.bfloat16 and pipe.unet.time_embedding.linear_1.weight.dtype == torch.float32
    assert pipe.describe()["precision"] == "bf16" and pipe.describe()["memory"] == "full"


def test_mini_colors_in_bf16_as_in_fp32():
    preset = settings(canvas={"area": 128 * 128}, sampling={"sampler": "euler", "steps": 2, "start": "match"})
    small = prepare_frame(read_picture(min((SAMPLES / "walk").glob("*.png"))), preset, VARIANTS["mini"])
    key = prepare_key(read_picture(SAMPLES / "walk_key.png"), preset, VARIANTS["mini"])
    layers = []
    for precision in ("fp32", "bf16"):
        pipe = load_pipeline("mini", "cpu", precision=precision)
        layers.append(pipe.color([small], pipe.encode_reference(key, preset), preset)[0])
    assert np.median(np.abs(layers[0] - layers[1])) < 2 / 255


def test_weights_without_room_in_the_computer_are_refused_before_they_are_read(monkeypatch):
    """Linux would end the program without a word."""
    monkeypatch.setattr("colorcli.loading.memory_bytes", lambda: (40_000_000, 2**35))
    with pytest.raises(DeviceError, match=r"mini take 0\.1 GB in fp32.* 0\.0 GB") as failure:
        load_pipeline("mini", device="cpu")
    assert "--precision bf16" in (failure.value.hint or "")
    assert load_pipeline("mini", device="cpu", precision="bf16").variant.name == "mini"
