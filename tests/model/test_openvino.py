"""OpenVINO against torch, on the shipped mini: what each network gives, and what a frame becomes."""

import importlib.util
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from colorcli.errors import MissingExtraError, PresetError, UsageError, WeightsError
from colorcli.images import read_picture
from colorcli.loading import load_pipeline
from colorcli.model import openvino_export as exported
from colorcli.model.attention import AttentionPlan
from colorcli.model.build import last_features
from colorcli.model.openvino_networks import OpenVinoNetworks, convert, open_openvino, save_networks
from colorcli.model.unet import Sighting, project_context
from colorcli.model.weights import WeightsList, require_whole, shipped_folder
from colorcli.pipeline import ColorizePipeline
from colorcli.prepare.frame import prepare_frame
from colorcli.prepare.key import prepare_key
from colorcli.presets import Preset
from colorcli.variants import VARIANTS

pytestmark = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="the extra is not installed")

SAMPLES = Path(__file__).parent.parent.parent / "samples"
MINI = VARIANTS["mini"]
CLOSE = 1e-3
CANVASES = [(256, 128), (128, 160)]   # height and width; neither is what the networks are traced at


@pytest.fixture(scope="module")
def mini() -> ColorizePipeline:
    return load_pipeline("mini", "cpu")


@pytest.fixture(scope="module")
def networks(mini: ColorizePipeline) -> dict[str, Any]:
    """Those of the shipped mini, converted."""
    return convert(mini)


@pytest.fixture(scope="module")
def folder(networks: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the shipped mini."""
    made = tmp_path_factory.mktemp("export") / "mini"
    with exported.new_folder(made) as fresh:
        save_networks(networks, fresh)
        exported.write_export(fresh, require_whole(shipped_folder("mini")))
    return made


@pytest.fixture(scope="module")
def engine(mini: ColorizePipeline, networks: dict[str, Any]) -> OpenVinoNetworks:
    """As it is without an export."""
    return OpenVinoNetworks(mini.unet, networks, threads=2)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def far(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("size", CANVASES)
def test_every_network_gives_what_torch_gives_on_any_canvas(
    mini: ColorizePipeline, engine: OpenVinoNetworks, size: tuple[int, int]
) -> None:
    height, width = size
    sketch = (drawn(1, 3, height, width) > 1.5).float() * 2 - 1
    latents, y = drawn(1, 4, height // 8, width // 8), drawn(1, 512)
    with torch.inference_mode():
        maps = mini.sketch_encoder(sketch)
        context = project_context(mini.unet, drawn(1, 256, 192))
        seen, seen_there = Sighting(last_features(mini.unet)), Sighting(last_features(mini.unet))
        wanted = mini.unet(latents, 300.5, y, context, maps, observe=seen)
        found = engine.denoise(latents, 300.5, y, context, maps, observe=seen_there)
        assert all(far(*pair) < CLOSE for pair in zip(engine.sketch(sketch), maps, strict=True))
        assert far(found, wanted) < CLOSE and far(seen_there.features, seen.features) < CLOSE
        pixels = drawn(1, 3, 256, 256)
        assert far(engine.tagger(pixels), mini.tagger(pixels)) < CLOSE


def test_strengths_and_rows_that_see_nothing_are_as_in_torch(mini: ColorizePipeline, engine: OpenVinoNetworks) -> None:
    latents, y, tokens = drawn(2, 4, 16, 16), drawn(1, 512), drawn(1, 256, 192)
    plan = AttentionPlan(strengths=[0.5 + 0.1 * i for i in range(17)], seeing_rows=[1])
    with torch.inference_mode():
        maps = mini.sketch_encoder(drawn(1, 3, 128, 128))
        pairs = [run(latents, 700.0, y, tokens, maps, plan) for run in (mini.unet, engine.denoise)]
        plain = engine.denoise(latents, 700.0, y, tokens, maps)
    assert far(pairs[1], pairs[0]) < CLOSE
    assert far(plain[:1], pairs[0][:1]) > 10 * CLOSE, "the reference changes what is predicted"


def test_a_row_does_not_depend_on_the_others_on_the_threads_or_on_the_export(
    mini: ColorizePipeline, engine: OpenVinoNetworks, folder: Path
) -> None:
    alone = open_openvino(mini, exported.read_export(folder), threads=1)
    latents, y, tokens = drawn(2, 4, 20, 24), drawn(1, 512), drawn(1, 256, 192)
    with torch.inference_mode():
        maps = mini.sketch_encoder(drawn(2, 3, 160, 192))
        together = engine.denoise(latents, 300.0, y, tokens, maps)
        row = alone.denoise(latents[1:], 300.0, y, tokens, [level[1:] for level in maps])
    assert torch.equal(together[1:], row)


def test_any_thread_may_ask(engine: OpenVinoNetworks) -> None:
    sketches = [drawn(1, 3, 128, 128 + 32 * i) for i in range(4)]
    alone = [engine.sketch(sketch) for sketch in sketches]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(engine.sketch, sketches))
    for wanted, found in zip(alone, together, strict=True):
        assert all(torch.equal(*pair) for pair in zip(wanted, found, strict=True))


@pytest.mark.parametrize("settings", [{}, {"sampling": {"steps": 2}, "reference": {"guidance": 2.0}}])
def test_a_frame_has_the_colors_that_torch_gives_it(
    mini: ColorizePipeline, engine: OpenVinoNetworks, settings: dict[str, object]
) -> None:
    preset = Preset.model_validate({"canvas": {"area": 160 * 160}, **settings})
    frame = prepare_frame(read_picture(SAMPLES / "walk" / "walk.0001.png"), preset, MINI)
    key = prepare_key(read_picture(SAMPLES / "walk_key.png"), preset, MINI)
    layers = []
    for runs in (None, engine):
        mini.use_engine(runs)
        layers.append(mini.color([frame], mini.encode_reference(key, preset), preset)[0])
    assert mini.describe()["engine"].startswith("openvino 20")
    mini.use_engine(None)
    assert mini.describe()["engine"] == "torch"
    assert np.abs(layers[0] - layers[1]).max() < CLOSE
    assert layers[0].std() > 0.05, "there is something to see"


def test_openvino_comes_without_what_reports_its_use(engine: OpenVinoNetworks) -> None:
    assert "openvino" in sys.modules and "openvino_telemetry" not in sys.modules


def test_a_preset_that_only_torch_can_do_is_refused(mini: ColorizePipeline, engine: OpenVinoNetworks) -> None:
    key = read_picture(SAMPLES / "walk_key.png")
    preset = Preset.model_validate({"background": {"split": True}})
    mini.use_engine(engine)
    with pytest.raises(PresetError, match=r"background.split"):
        mini.encode_reference(prepare_key(key, preset, MINI), preset)
    mini.use_engine(None)


def test_an_export_names_its_license_and_the_weights_it_was_made_of(folder: Path) -> None:
    export = exported.read_export(folder)
    listed = json.loads((shipped_folder("mini") / "weights.json").read_text())
    assert (export.model, export.license) == ("mini", listed["license"])
    assert export.weights_sha256 == require_whole(shipped_folder("mini")).digest
    assert set(export.made_with) == {"colorcli", "openvino", "torch"}
    assert sorted(path.name for path in folder.iterdir()) == sorted([*export.files, "engine.json"])
    assert not list(folder.parent.glob(".*")), "nothing is left beside it"


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda folder: (folder / "sketch.bin").write_bytes(bytes(2_080_508)), r"sketch\.bin is damaged"),
        (lambda folder: (folder / "tagger.xml").unlink(), r"tagger\.xml is missing"),
        (lambda folder: (folder / "engine.json").unlink(), r"holds no engine\.json"),
        (lambda folder: (folder / "engine.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "engine.json").write_text("[]"), "is damaged"),
        (lambda folder: (folder / "engine.json").write_text('{"schema": "colorcli/engine/9"}'), "colorcli/engine/9"),
    ],
)
def test_a_damaged_export_is_told(folder: Path, tmp_path: Path, harm, says: str) -> None:
    copied = tmp_path / "export"
    shutil.copytree(folder, copied)
    harm(copied)
    with pytest.raises(WeightsError, match=says):
        exported.read_export(copied)


def test_files_that_openvino_cannot_read_are_told(mini: ColorizePipeline, folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "export"
    shutil.copytree(folder, copied)
    (copied / "sketch.xml").write_text("no network")
    export = replace(exported.read_export(folder), folder=copied)
    with pytest.raises(WeightsError, match=r"cannot read .*sketch\.xml"):
        open_openvino(mini, export)


def test_an_export_goes_with_its_own_weights_alone(folder: Path) -> None:
    export = exported.read_export(folder)
    own, other = require_whole(shipped_folder("mini")), WeightsList("mini", "MIT", {})
    exported.check_export(export, own)
    with pytest.raises(WeightsError, match="other weights"):
        exported.check_export(export, other)
    with pytest.raises(WeightsError, match="lora"):
        exported.check_export(export, own, loras=1)


def test_a_folder_that_is_there_is_left_alone_and_a_failure_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("mine")
    with pytest.raises(UsageError, match="there already"), exported.new_folder(tmp_path / "mine"):
        pass
    with pytest.raises(RuntimeError), exported.new_folder(tmp_path / "new") as fresh:
        (fresh / "half.xml").write_text("half")
        raise RuntimeError
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "work.txt"]


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        exported.find_engine("openvino")
    assert "colorcli[openvino]" in str(caught.value.hint)


def test_what_is_neither_an_engine_nor_a_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="onnxruntime is neither"):
        exported.find_engine("onnxruntime")
    with pytest.raises(WeightsError, match="no export"):
        exported.find_engine(str(tmp_path))
