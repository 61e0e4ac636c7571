"""A published file colors the same picture by every way that leads to it: imported, by itself, and built directly."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from colorcli.images import read_picture
from colorcli.loading import load_pipeline
from colorcli.model.importing import import_model
from colorcli.pipeline import ColorizePipeline
from colorcli.prepare.frame import prepare_frame
from colorcli.prepare.key import prepare_key
from colorcli.presets import Preset
from colorcli.variants import VARIANTS
from tests.model.published import Family, build_directly, build_v2_directly, write_published, write_towers

SAMPLES = Path(__file__).parent.parent / "samples"
MODELS: dict[Family, str] = {"sdxl": "xl", "xlv2": "xlv2"}


@pytest.fixture(scope="module", params=MODELS)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture(scope="module")
def file(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small published file with its towers inside."""
    return write_published(tmp_path_factory.mktemp(family) / f"{family}-all.safetensors", family, towers=True)


@pytest.fixture(scope="module")
def built(file: Path) -> ColorizePipeline:
    """The pipeline put together with no part of the import."""
    return ColorizePipeline(**build_directly(file, torch.float32))


@pytest.fixture(scope="module")
def expected(built: ColorizePipeline, family: Family) -> NDArray[np.float32]:
    return color(built, family)


@pytest.fixture(autouse=True)
def no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORCLI_MODELS", str(tmp_path / "installed"))


def settings(family: Family) -> Preset:
    return Preset.model_validate({
        "model": MODELS[family],
        "canvas": {"size": (96, 128)},
        "background": {"split": family == "xlv2"},
        "reference": {"guidance": 2.0},
        "sampling": {"sampler": "euler", "steps": 2, "start": "noise"},
    })


def color(pipe: ColorizePipeline, family: Family) -> NDArray[np.float32]:
    """Color the first frame of the sample shot."""
    preset, small = settings(family), replace(VARIANTS[MODELS[family]], min_side=64)
    key = prepare_key(read_picture(SAMPLES / "walk_key.png"), preset, small)
    frame = prepare_frame(read_picture(min((SAMPLES / "walk").glob("*.png"))), preset, small)
    return pipe.color([frame], pipe.encode_reference(key, preset), preset)[0]


def load(model: Path | str) -> ColorizePipeline:
    """Load as a user does, in fp32, and decode whole as the pipeline does that is built directly."""
    return load_pipeline(str(model), device="cpu", precision="fp32", memory="full")


def test_an_imported_file_and_the_file_itself_give_the_picture_of_a_direct_build(
    family: Family, file: Path, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    assert np.isfinite(expected).all() and expected.std() > 0.01
    for model in (import_model(file, to=tmp_path).folder, file):
        loaded = load(model)
        assert loaded.variant.name == MODELS[family]
        assert np.array_equal(color(loaded, family), expected)


def test_every_network_of_the_file_takes_part_in_the_picture(
    family: Family, built: ColorizePipeline, expected: NDArray[np.float32]
) -> None:
    """Else an import that loses one would give the same picture too."""
    networks = {name: part for name, part in built.components.items() if isinstance(part, nn.Module)}
    runs: set[str] = set()
    hooks = [inner.register_forward_hook(lambda *_, name=name: runs.add(name))
             for name, part in networks.items() for inner in part.modules()]
    again = color(built, family)
    for hook in hooks:
        hook.remove()
    assert np.array_equal(again, expected)
    # The adapter never runs by itself: the U-Net adds its numbers to its own.
    assert set(networks) - runs == ({"adapter"} if family == "xlv2" else set())
    if family == "xlv2":
        bare = ColorizePipeline(**{**built.components, "adapter": None})
        assert not np.array_equal(color(bare, family), expected)


def test_a_file_without_towers_takes_those_of_an_installed_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As published: the CLIP tower and the tagger are files of their own."""
    clip, tagger = write_towers(tmp_path / "towers")
    whole = write_published(tmp_path / "whole.safetensors", "sdxl", towers=True)
    alone = write_published(tmp_path / "sdxl-alone.safetensors", "sdxl")
    monkeypatch.setenv("COLORCLI_MODELS", str(tmp_path / "models"))
    import_model(alone, clip=clip, tagger=tagger)

    expected = color(load(whole), "sdxl")
    assert np.array_equal(color(load("xl"), "sdxl"), expected)
    assert np.array_equal(color(load(alone), "sdxl"), expected)


def test_a_v2_file_gives_one_picture_by_every_way(tmp_path: Path) -> None:
    file = write_published(tmp_path / "v2-all.safetensors", "v2", towers=True)
    preset = Preset.model_validate({
        "model": "v2",
        "canvas": {"size": (128, 128)},
        "background": {"split": True},
        "style": {"enhance": True},
        "reference": {"guidance": 2.0},
        "sampling": {"sampler": "ddim", "steps": 2, "start": "noise"},
    })
    small = replace(VARIANTS["v2"], min_side=64)
    frame = prepare_frame(read_picture(min((SAMPLES / "walk").glob("*.png"))), preset, small)
    key = prepare_key(read_picture(SAMPLES / "walk_key.png"), preset, small)
    direct = {name: part.float() if isinstance(part, nn.Module) else part
              for name, part in build_v2_directly(file).items()}
    pipelines = ColorizePipeline(**direct), load(import_model(file, to=tmp_path / "v2").folder), load(file)
    built, imported, alone = (
        pipe.color([frame], pipe.encode_reference(key, preset), preset)[0] for pipe in pipelines
    )
    assert np.array_equal(imported, alone)
    # Built in 16 bit first, whose computed tables lose a little.
    assert np.isfinite(built).all() and built.std() > 0.01 and np.abs(built - imported).max() < 1e-3
