"""What is computed how often over a shot, and that a frame is the same in any batch."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch

from colorcli.model.memory import PRECISIONS, apply_precision
from colorcli.model.unet import decoder_start, transformer_blocks
from colorcli.pipeline import ColorizePipeline, picture_of
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import prepare_key
from colorcli.presets import Preset
from colorcli.variants import VARIANTS
from tests import tiny_mini, tiny_xl
from tests.shot.studio import color, draw, draw_key, drawing

STEPS = 2
SMALL = replace(VARIANTS["xlv2"], min_side=64)


def preset(**groups: dict[str, Any]) -> Preset:
    quick = {"canvas": {"area": 64 * 96, "crop": "frame"},
             "sampling": {"sampler": "euler", "steps": STEPS, "start": "noise"}}
    return Preset.model_validate({name: {**quick.get(name, {}), **groups.get(name, {})} for name in {*quick, *groups}})


SPLIT = preset(background={"split": True}, reference={"guidance": 2.0}, sketch={"guidance": 2.0})


def frames_of(settings: Preset, count: int = 4) -> list[PreparedFrame]:
    return [prepare_frame(picture_of(drawing(number)), settings, SMALL) for number in range(count)]


def reference_of(pipe: ColorizePipeline, settings: Preset) -> Any:
    key = drawing(0)
    key[11:25, 11:25] = 0.8, 0.3, 0.2
    return pipe.encode_reference(prepare_key(picture_of(key), settings, SMALL), settings)


@contextmanager
def counted(**modules: torch.nn.Module) -> Iterator[dict[str, int]]:
    """Count the calls of modules."""
    calls = dict.fromkeys(modules, 0)
    with ExitStack() as hooks:
        for name, module in modules.items():
            def count(*_: Any, name: str = name) -> None:
                calls[name] += 1
            hooks.callback(module.register_forward_pre_hook(count).remove)
        yield calls


@pytest.fixture(scope="module")
def xlv2() -> ColorizePipeline:
    return tiny_xl.pipeline(adapter=True)


def test_what_does_not_change_over_a_shot_is_computed_once(xlv2):
    frames = frames_of(SPLIT)
    blocks = transformer_blocks(xlv2.unet)
    reader = blocks[decoder_start(xlv2.unet)].attn1
    parts = {
        "key": xlv2.image_encoder.vision_model, "tagger": xlv2.tagger,
        "keys": blocks[0].attn2.to_k, "values": blocks[-1].attn2.to_v,
        "lines": xlv2.sketch_encoder, "background": xlv2.vae.encoder, "bank": xlv2.reference_net, "network": xlv2.unet,
        "decoder's keys": reader.to_k,
    }
    with counted(**parts) as calls:
        reference = reference_of(xlv2, SPLIT)
        for frame in frames:
            xlv2.color([frame], reference, SPLIT)
    each = len(frames)
    assert calls == {
        "key": 2, "tagger": 2,          # the key, and what is behind the character in it
        "keys": 1, "values": 1,         # projected for the whole shot
        "lines": each + 1,              # every drawing, and one empty sheet
        "background": 1,
        "bank": each,                   # it reads the frame's mask, but not the step
        "network": each * STEPS,        # all branches in one call
        "decoder's keys": each * (STEPS + 1),   # its own tokens in every step, the bank's once a frame
    }


def test_each_size_of_canvas_has_its_own_empty_sheet_and_few_are_kept(xlv2):
    reference = reference_of(xlv2, SPLIT)
    areas = (64 * 96, 96 * 128, 128 * 192)
    sizes = [preset(background={"split": True}, sketch={"guidance": 2.0}, canvas={"area": area}) for area in areas]
    frames = [frames_of(one, 1)[0] for one in sizes]
    assert len({frame.canvas.size for frame in frames}) == 3
    with counted(lines=xlv2.sketch_encoder) as calls:
        for frame, one in zip([*frames[:2], *frames[:2]], [*sizes[:2], *sizes[:2]], strict=True):
            xlv2.color([frame], reference, one)
        assert calls["lines"] == 4 + 2
        xlv2.color([frames[2]], reference, sizes[2])
        xlv2.color([frames[0]], reference, sizes[0])   # the oldest of three made room
    assert calls["lines"] == 6 + 2 + 2


def test_reference_only_attention_reads_the_key_on_a_canvas_once(xlv2):
    settings = preset(injection={"on": True}, reference={"guidance": 2.0})
    frames = frames_of(settings, 3)
    with counted(lines=xlv2.sketch_encoder, pictures=xlv2.vae.encoder) as calls:
        reference = reference_of(xlv2, settings)
        for frame in frames:
            xlv2.color([frame], reference, settings)
    assert calls == {"lines": 3 + 1, "pictures": 1}


# --- batches


def test_on_a_cpu_every_bit_of_a_frame_is_the_same_in_any_batch_and_order(xlv2):
    frames = frames_of(SPLIT)
    reference = reference_of(xlv2, SPLIT)
    alone = [xlv2.color([frame], reference, SPLIT)[0] for frame in frames]
    assert not np.array_equal(alone[0], alone[1])
    for order in ([0, 1], [2, 1, 0], [3, 1, 0, 2]):
        together = xlv2.color([frames[i] for i in order], reference, SPLIT)
        assert all(np.array_equal(one, alone[i]) for one, i in zip(together, order, strict=True)), order


def test_on_a_cpu_a_run_from_a_match_has_the_same_bits_in_any_order():
    torch.manual_seed(0)
    made = tiny_mini.components(matcher=True)
    torch.nn.init.normal_(made.unet.conv_out.weight, std=0.1)
    made.freeze()
    pipe = ColorizePipeline(**{name: module for name, module in vars(made).items() if name != "beside"})
    settings = Preset.model_validate({"canvas": {"area": 128 * 128}, "sampling": {"steps": 2}})
    frames = [prepare_frame(picture_of(drawing(n)), settings, VARIANTS["mini"]) for n in range(3)]
    reference = pipe.encode_reference(np.asarray(drawing(0) * [0.8, 0.5, 0.4], np.float32), settings)
    alone = [pipe.color([frame], reference, settings)[0] for frame in frames]
    for order in list(permutations(range(3)))[1::2]:
        together = pipe.color([frames[i] for i in order], reference, settings)
        assert all(np.array_equal(one, alone[i]) for one, i in zip(together, order, strict=True)), order


def in_precision(name: str) -> ColorizePipeline:
    pipe = tiny_xl.pipeline(adapter=True)
    pipe.profile = replace(pipe.profile, precision=PRECISIONS[name])
    apply_precision(pipe.components, pipe.profile)
    return pipe


def decibel(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """Give the peak signal to the difference of the worst frame."""
    errors = [float(np.square(one - other, dtype=np.float64).mean()) for one, other in zip(ours, theirs, strict=True)]
    return float(-10 * np.log10(max(*errors, 1e-20)))


GUIDED = {"reference": {"guidance": 2.0}, "sketch": {"guidance": 2.0}}


@pytest.mark.parametrize("groups", [{}, GUIDED, {"background": {"split": True}}], ids=["plain", "guided", "split"])
def test_frames_that_are_really_computed_together_come_out_as_alone_in_bf16(groups):
    """As on a graphics card: all rows in one call of the network."""
    settings, pipe = preset(**groups), in_precision("bf16")
    frames, reference = frames_of(settings, 3), reference_of(pipe, settings)
    with torch.inference_mode():
        together = pipe._color(frames, reference, settings).layers
    assert decibel(together, [pipe.color([frame], reference, settings)[0] for frame in frames]) >= 50


def test_guidance_on_a_bank_leaves_no_more_of_the_batch_than_the_numbers_leave_of_themselves():
    """Guidance enlarges what bf16 rounds, in random networks by much: no batch may add to that."""
    found = {}
    for name in ("fp32", "bf16"):
        pipe = in_precision(name)
        frames, reference = frames_of(SPLIT, 3), reference_of(pipe, SPLIT)
        with torch.inference_mode():
            found[name, "together"] = pipe._color(frames, reference, SPLIT).layers
        found[name, "alone"] = [pipe.color([frame], reference, SPLIT)[0] for frame in frames]
    assert decibel(found["fp32", "together"], found["fp32", "alone"]) >= 90
    rounding = decibel(found["bf16", "alone"], found["fp32", "alone"])
    assert decibel(found["bf16", "together"], found["bf16", "alone"]) > rounding - 3
    assert decibel(found["bf16", "together"], found["fp32", "alone"]) > rounding - 3


# --- a whole shot


@dataclass
class Watched:
    """A colorizer that runs a real network and counts what it is asked for."""

    pipe: ColorizePipeline
    keys: int = 0
    frames: list[int] = field(default_factory=list)

    def encode_reference(self, key: Any, settings: Preset) -> Any:
        self.keys += 1
        return self.pipe.encode_reference(key, settings)

    def color(self, frames: Any, reference: Any, settings: Preset, *more: Any) -> Any:
        self.frames.append(len(frames))
        return self.pipe.color(frames, reference, settings, *more)

    def describe(self) -> dict[str, Any]:
        return {"device": "cpu", "attention": "sdpa"}


def test_a_shot_on_twos_calls_the_network_for_its_drawings_alone(tmp_path):
    shot = tmp_path / "walk"
    for number in range(1, 9):
        draw(shot / f"walk.{number:04d}.png", (number + 1) // 2)
    draw_key(tmp_path / "key.png")
    watched = Watched(tiny_xl.pipeline())
    settings = preset(reference={"guidance": 2.0})
    with counted(network=watched.pipe.unet, key=watched.pipe.image_encoder.vision_model, keys=transformer_blocks(
            watched.pipe.unet)[0].attn2.to_k) as calls:
        outcome = color(shot, colorizer=watched, preset=settings)
    assert sorted(outcome.listener.status().values()) == ["held"] * 4 + ["written"] * 4
    assert (watched.keys, sum(watched.frames)) == (1, 4)
    assert calls == {"network": 4 * STEPS, "key": 1, "keys": 1}
