"""The pipeline on a v2 of tiny width and random weights: every option reaches the picture."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from colorcli.errors import PresetError, WeightsError
from colorcli.images import over_paper, read_picture
from colorcli.model.memory import PRECISIONS, PROFILES
from colorcli.pipeline import ColorizePipeline, picture_of
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import PreparedKey, prepare_key
from colorcli.presets import Preset, check_for_variant
from colorcli.variants import VARIANTS
from tests import tiny_v2
from tests.away import nan_while_away

SAMPLES = Path(__file__).parent.parent / "samples"
QUICK: dict[str, Any] = {
    "canvas": {"area": 128 * 128, "crop": "frame"},
    "reference": {"guidance": 2.0},
    "sampling": {"sampler": "diffusers-dpm", "steps": 2, "start": "noise"},
}
SMALL = replace(VARIANTS["v2"], min_side=64)
SPLIT = {"background": {"split": True}}


def preset(manipulate: tuple[dict[str, Any], ...] = (), **groups: dict[str, Any]) -> Preset:
    merged: dict[str, Any] = {name: {**QUICK.get(name, {}), **groups.get(name, {})} for name in {*QUICK, *groups}}
    return Preset.model_validate(merged | {"manipulate": manipulate})


@pytest.fixture(scope="module")
def v2() -> ColorizePipeline:
    return tiny_v2.pipeline(words=True)


@pytest.fixture(scope="module")
def frame() -> PreparedFrame:
    return prepare_frame(read_picture(SAMPLES / "walk" / "walk.0001.png"), preset(), SMALL)


def key(settings: Preset) -> PreparedKey:
    sky = None
    if settings.background.image is not None:
        sky = picture_of(np.linspace(0, 1, 40 * 60 * 3, dtype=np.float32).reshape(40, 60, 3))
    return prepare_key(read_picture(SAMPLES / "walk_key.png"), settings, SMALL, background=sky)


def layer(pipe: ColorizePipeline, frame: PreparedFrame, **groups: Any) -> Any:
    settings = preset(**groups)
    return pipe.color([frame], pipe.encode_reference(key(settings), settings), settings)[0]


def test_it_is_told_from_its_parts(v2):
    assert v2.variant.name == "v2"


def test_a_layer_has_the_size_of_its_canvas(v2, frame):
    found = layer(v2, frame)
    assert found.shape[:2] == frame.ink_canvas.shape
    assert all(side % 64 == 0 for side in found.shape[:2])
    assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("groups", [
    SPLIT,
    {"style": {"enhance": True}},
    {"reference": {"strength": 0.5}},
    {"reference": {"low": 0.2}},
    {"sketch": {"strength": 0.5}},
    {"sketch": {"guidance": 2.0}},
    {"injection": {"on": True}},
    {"manipulate": ({"target": "red hair", "scale": 9},)},
], ids=["split", "style", "strength", "low", "sketch", "sketch-guidance", "injection", "manipulate"])
def test_an_option_changes_the_picture(v2, frame, groups):
    assert np.abs(layer(v2, frame, **groups) - layer(v2, frame)).max() > 1e-4


@pytest.mark.parametrize("background", [
    {"hints": 0.0}, {"adapter": 0.0}, {"image": "sky.png"}, {"image": "sky.png", "latent_copy": True},
], ids=["hints", "adapter", "image", "latent-copy"])
def test_with_a_split_an_option_of_the_background_changes_the_picture(v2, frame, background):
    plain = layer(v2, frame, **SPLIT)
    assert np.abs(layer(v2, frame, background={"split": True, **background}) - plain).max() > 1e-4


def test_a_saved_model_colors_as_before(v2, frame, tmp_path):
    v2.save_pretrained(tmp_path)
    again = ColorizePipeline.from_pretrained(tmp_path)
    both = {"background": {"split": True}, "style": {"enhance": True}}
    assert np.abs(layer(again, frame, **both) - layer(v2, frame, **both)).max() < 1e-4


def test_in_16_bit_the_picture_is_nearly_the_same(v2, frame):
    both = {"background": {"split": True}, "style": {"enhance": True}}
    half = tiny_v2.pipeline().keep_within(replace(PROFILES["full"], precision=PRECISIONS["bf16"]), "cpu")
    assert half.style_encoder.dtype == half.background_encoder.dtype == torch.bfloat16
    difference = np.abs(layer(half, frame, **both) - layer(v2, frame, **both))
    assert 0 < difference.mean() < 0.02


ALL_OF_IT: dict[str, Any] = {
    "background": {"split": True}, "style": {"enhance": True},
    "manipulate": ({"target": "red hair", "scale": 9.0, "control": "hair"},),
}


def test_every_phase_finds_its_parts_there(frame):
    pipe = tiny_v2.pipeline(words=True)
    nan_while_away(pipe)
    assert np.isfinite(layer(pipe, frame, **ALL_OF_IT)).all()
    assert np.isfinite(layer(pipe, frame)).all()


@pytest.mark.parametrize("storage", ["compute", "fp8"])
def test_the_smallest_profile_colors_with_all_of_it(v2, frame, storage):
    profile = replace(PROFILES["8g"], budget=0, precision=PRECISIONS["bf16"], storage=storage)
    small = tiny_v2.pipeline(words=True)
    small.text_encoder.load_state_dict(v2.text_encoder.state_dict())
    found = layer(small.keep_within(profile, "cpu"), frame, **ALL_OF_IT)
    assert 0 < np.abs(found - layer(v2, frame, **ALL_OF_IT)).mean() < (0.02 if storage == "compute" else 0.1)


def test_a_style_is_refused_where_no_model_part_reads_it():
    with pytest.raises(PresetError, match=r"style\.enhance .* xl has no style encoder .*v2"):
        check_for_variant(preset(style={"enhance": True}), VARIANTS["xl"])


@contextmanager
def calls_of(module: torch.nn.Module) -> Iterator[list[None]]:
    """Count the calls of a network."""
    calls: list[None] = []
    hook = module.register_forward_pre_hook(lambda *_: calls.append(None))
    yield calls
    hook.remove()


def test_the_side_encoders_read_a_key_once_for_all_frames_of_one_size(v2, frame):
    both = preset(background={"split": True}, style={"enhance": True})
    reference = v2.encode_reference(key(both), both)
    with calls_of(v2.background_encoder) as hints, calls_of(v2.style_encoder) as styles:
        first = v2.color([frame], reference, both)[0]
        again = v2.color([frame], reference, both)[0]
        assert (len(hints), len(styles)) == (1, 1)
        weaker = preset(background={"split": True, "hints": 0.5}, style={"enhance": True})
        v2.color([frame], reference, weaker)
        assert len(hints) == 2
    assert np.array_equal(first, again)


def test_frames_colored_together_come_out_as_alone(v2, frame):
    other = prepare_frame(read_picture(SAMPLES / "walk" / "walk.0002.png"), preset(), SMALL)
    both = preset(background={"split": True}, style={"enhance": True}, sketch={"guidance": 2.0})
    reference = v2.encode_reference(key(both), both)
    with torch.inference_mode():
        together = v2._color([frame, other], reference, both).layers
    for one, alone in zip(together, (frame, other), strict=True):
        assert np.abs(one - v2.color([alone], reference, both)[0]).max() < 1e-4


RED = {"target": "red hair", "scale": 9.0}


def test_what_reads_words_is_saved_too(v2, frame, tmp_path):
    v2.save_pretrained(tmp_path)
    again = ColorizePipeline.from_pretrained(tmp_path)
    edits = ({**RED, "anchor": "hair", "control": "hair"},)
    assert np.abs(layer(again, frame, manipulate=edits) - layer(v2, frame, manipulate=edits)).max() < 1e-4


def test_a_vocabulary_that_was_copied_into_the_folder_later_is_found(v2, frame, tmp_path):
    bare = tiny_v2.pipeline()
    bare.register_modules(text_encoder=v2.text_encoder)
    bare.save_pretrained(tmp_path)
    vocabulary = {word: i for word, i in v2.tokenizer.get_vocab().items()}
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    again = ColorizePipeline.from_pretrained(tmp_path)
    assert np.abs(layer(again, frame, manipulate=(RED,)) - layer(v2, frame, manipulate=(RED,))).max() < 1e-4


@pytest.mark.parametrize("lacks", ["text_encoder", "tokenizer"])
def test_a_model_that_cannot_read_words_says_what_it_lacks(lacks):
    half = tiny_v2.pipeline(words=True)
    half.register_modules(**{lacks: None})
    settings = preset(manipulate=(RED,))
    with pytest.raises(WeightsError, match=f"manipulate, .* has no {lacks}/"):
        half.encode_reference(key(settings), settings)


def test_a_vocabulary_of_another_model_is_refused():
    wrong = tiny_v2.pipeline(words=True)
    wrong.register_modules(tokenizer=CLIPTokenizer())
    settings = preset(manipulate=(RED,))
    with pytest.raises(WeightsError, match=r"tokenizer/ .* words"):
        wrong.encode_reference(key(settings), settings)


def test_a_text_that_is_too_long_is_named(v2):
    settings = preset(manipulate=({**RED, "control": "a long coat of velvet"},))
    with pytest.raises(PresetError, match=r'"a long coat of velvet" is 19 tokens long, but the model reads 16'):
        v2.encode_reference(key(settings), settings)


def test_similarity_shows_the_places_of_the_key_that_the_words_reach(v2):
    """Against the tower's own tokens: full where the likeness is largest, none where it is smallest."""
    settings = preset(manipulate=({**RED, "control": "coat"}, RED))
    prepared = key(settings)
    shown, none = v2.similarity(prepared, settings)
    assert none is None
    assert shown.shape == prepared.picture.color.shape[:2]
    assert set(np.unique(shown)) <= {0.0, 0.25, 0.5, 0.75, 1.0} and shown.max() == 1
    with torch.inference_mode():
        picture = torch.from_numpy(over_paper(prepared.picture)).permute(2, 0, 1)[None] * 2 - 1
        likeness = (v2._clip_tokens(picture)[0, 1:] @ v2._words.vectors(["coat"], torch.device("cpu"))[0]).numpy()
    rows, columns = shown.shape

    def at(token: int) -> float:
        row, column = divmod(int(token), 4)   # the tiny tower sees 4 x 4 places
        return float(shown[int((row + 0.5) * rows / 4), int((column + 0.5) * columns / 4)])

    assert at(likeness.argmax()) >= 0.75
    assert at(likeness.argmin()) == 0
