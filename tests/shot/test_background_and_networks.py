"""A background picture and networks on a shot: what is read, what makes a frame new, what is recorded, what is told."""

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from colorcli.errors import KeyImageError, WeightsError
from colorcli.images import FORMATS, read_picture, write_picture
from colorcli.prepare.key import PreparedKey
from colorcli.presets import BackgroundSettings, LineSettings, MaskSettings, Preset
from colorcli.shot.manifest import SCHEMA_FILE, Manifest, read_manifest
from colorcli.shot.plan import ShotRequest, plan_shots, survey_shots
from colorcli.shot.preview import write_preview
from tests.model.onnx_made import darkness, near_ink
from tests.shot.studio import FakeColorizer, color, draw_shot


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    return draw_shot(tmp_path / "walk", (1, 2))


def paint_wall(path: Path, color: tuple[float, float, float] = (0.2, 0.4, 0.6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wall = np.empty((30, 50, 3), np.float32)
    wall[:] = color
    write_picture(path, wall, None, FORMATS["png8"])
    return path


def before(wall: Path | str, **settings: Any) -> Preset:
    return Preset(background=BackgroundSettings(image=str(wall), split=True, **settings))


def by_network(network: Path | str | None = None, **masks: Any) -> Preset:
    return Preset(masks=MaskSettings(source="network", network=None if network is None else str(network), **masks))


class SeesBackground(FakeColorizer):
    """Paints every frame in the mean color of the background picture."""

    def encode_reference(self, key: PreparedKey, preset: Preset) -> Any:
        self.encoded += 1
        assert key.background is not None
        return key.background.color.mean(axis=(0, 1))


# --- the background -----------------------------------------------------------------------------------------------


def test_the_colorizer_gets_the_background_of_the_preset(walk: Path, tmp_path: Path) -> None:
    seen: list[PreparedKey] = []

    class Looks(SeesBackground):
        def encode_reference(self, key: PreparedKey, preset: Preset) -> Any:
            seen.append(key)
            return super().encode_reference(key, preset)

    outcome = color(walk, preset=before(paint_wall(tmp_path / "wall.png")), colorizer=Looks())
    assert outcome.result.exit_code == 0
    (key,) = seen
    assert key.background is not None
    np.testing.assert_allclose(key.background.color, np.broadcast_to((0.2, 0.4, 0.6), (30, 50, 3)), atol=1e-6)


def test_other_pixels_in_the_background_color_the_shot_again(walk: Path, tmp_path: Path) -> None:
    wall = paint_wall(tmp_path / "wall.png")
    color(walk, preset=before(wall), colorizer=SeesBackground())
    assert color(walk, preset=before(wall), colorizer=SeesBackground()).result.totals.skipped == 2
    paint_wall(wall, (0.9, 0.4, 0.6))
    assert len(color(walk, preset=before(wall), colorizer=SeesBackground()).colored) == 2


def test_a_background_that_only_moved_does_not(walk: Path, tmp_path: Path) -> None:
    wall = paint_wall(tmp_path / "wall.png")
    color(walk, preset=before(wall), colorizer=SeesBackground())
    (tmp_path / "other").mkdir()
    again = color(walk, preset=before(shutil.move(wall, tmp_path / "other/blue.png")), colorizer=SeesBackground())
    assert again.result.totals.skipped == 2 and again.loads == 0


def test_with_and_without_a_background_are_two_looks(walk: Path, tmp_path: Path) -> None:
    split = Preset(background=BackgroundSettings(split=True))
    color(walk, preset=split)
    with_wall = color(walk, preset=before(paint_wall(tmp_path / "wall.png")), colorizer=SeesBackground())
    assert len(with_wall.colored) == 2
    assert len(color(walk, preset=split).colored) == 2


def test_each_shot_of_a_tree_has_the_background_of_its_name(tmp_path: Path) -> None:
    colors = {"sc01": (0.2, 0.4, 0.6), "sc02": (0.8, 0.4, 0.0)}
    for name, wall in colors.items():
        draw_shot(tmp_path / "film" / name, (1,))
        paint_wall(tmp_path / "walls" / f"{name}.png", wall)
    draw_shot(tmp_path / "aside", (1,))
    request = ShotRequest(
        (str(tmp_path / "film"),), (str(tmp_path / "key.png"),), preset=before(tmp_path / "walls" / "{shot}.png")
    )
    backgrounds = {plan.name: plan.background for plan in plan_shots(request)}
    assert [path.name for path in backgrounds.values() if path is not None] == ["sc01.png", "sc02.png"]


def test_a_background_beside_the_frames_is_no_frame(walk: Path) -> None:
    wall = paint_wall(walk / "wall.png")
    outcome = color(walk, preset=before(wall), colorizer=SeesBackground())
    assert [job.name for job in outcome.plans[0].jobs] == ["walk.0001", "walk.0002"]


@pytest.mark.parametrize("kind", ["missing", "folder", "text"])
def test_a_background_that_is_no_picture_is_named_before_anything_is_colored(
    walk: Path, tmp_path: Path, kind: str
) -> None:
    wall = tmp_path / "wall.png"
    if kind == "folder":
        wall.mkdir()
    elif kind == "text":
        wall.write_text("a wall")
    request = ShotRequest((str(walk),), (str(tmp_path / "key.png"),), preset=before(wall))
    with pytest.raises(KeyImageError) as caught:
        plan_shots(request)
    assert "background.image" in caught.value.message and "wall.png" in caught.value.message
    assert caught.value.hint


def test_a_background_that_breaks_off_in_the_middle_stops_the_shot(walk: Path, tmp_path: Path) -> None:
    wall = tmp_path / "wall.png"
    write_picture(wall, np.random.default_rng(0).random((64, 64, 3)).astype(np.float32), None, FORMATS["png8"])
    content = wall.read_bytes()
    wall.write_bytes(content[: len(content) // 2])
    outcome = color(walk, preset=before(wall), colorizer=SeesBackground())
    assert outcome.result.exit_code == KeyImageError.exit_code and outcome.colored == []
    assert outcome.result.error is not None and "background.image" in outcome.result.error.message


def test_a_mask_named_like_the_background_is_its_mask(walk: Path, tmp_path: Path) -> None:
    wall, masks = paint_wall(tmp_path / "wall.png"), tmp_path / "masks"
    masks.mkdir()
    left = np.zeros((30, 50, 3), np.float32)
    left[:, :25] = 1
    write_picture(masks / "wall.png", left, None, FORMATS["png8"])
    seen: list[PreparedKey] = []

    class Looks(SeesBackground):
        def encode_reference(self, key: PreparedKey, preset: Preset) -> Any:
            seen.append(key)
            return super().encode_reference(key, preset)

    preset = before(wall, remove_foreground=True)
    color(walk, preset=preset, colorizer=Looks(), masks=(masks,))
    assert seen[0].background is not None
    np.testing.assert_array_equal(seen[0].background.mask, left[:, :, 0])
    write_picture(masks / "wall.png", 1 - left, None, FORMATS["png8"])
    assert len(color(walk, preset=preset, colorizer=SeesBackground(), masks=(masks,)).colored) == 2


def test_a_mask_of_another_size_than_the_background_is_told(walk: Path, tmp_path: Path) -> None:
    wall, masks = paint_wall(tmp_path / "wall.png"), tmp_path / "masks"
    masks.mkdir()
    write_picture(masks / "wall.png", np.ones((8, 8, 3), np.float32), None, FORMATS["png8"])
    outcome = color(walk, preset=before(wall), colorizer=SeesBackground(), masks=(masks,))
    assert outcome.result.exit_code == KeyImageError.exit_code
    assert outcome.result.error is not None and "8x8" in outcome.result.error.message
    assert "50x30" in outcome.result.error.message


def test_the_manifest_knows_the_background_by_a_relative_path(walk: Path, tmp_path: Path) -> None:
    wall = paint_wall(tmp_path / "walls" / "wall.png")
    color(walk, preset=before(wall.resolve()), colorizer=SeesBackground())
    manifest = read_manifest(tmp_path / "walk_color")
    assert manifest.background is not None
    assert manifest.background.path == "../walls/wall.png" and manifest.background.size == (50, 30)
    assert manifest.settings["background"]["image"] == "../walls/wall.png"
    content = json.loads((tmp_path / "walk_color" / "manifest.json").read_text())
    jsonschema.validate(content, json.loads(SCHEMA_FILE.read_text()))


def test_a_preview_shows_the_background_as_the_model_gets_it(walk: Path, tmp_path: Path) -> None:
    wall = paint_wall(tmp_path / "wall.png")
    request = ShotRequest((str(walk),), (str(tmp_path / "key.png"),), tmp_path / "seen", preset=before(wall))
    (plan,) = plan_shots(request)
    write_preview(plan, request.preset)
    shown = read_picture(tmp_path / "seen" / "background.color.png")
    np.testing.assert_array_equal(shown.color, read_picture(wall).color)
    assert read_picture(tmp_path / "seen" / "background.mask.png").color.max() == 0


# --- networks -----------------------------------------------------------------------------------------------------


def small(path: Path, **asked: Any) -> Path:
    return near_ink(path, reach=9, inputs={"picture": (1, 3, 64, 64)}, **asked)


def test_a_network_for_masks_decides_where_the_color_goes(walk: Path, tmp_path: Path) -> None:
    nothing = darkness(tmp_path / "nothing.onnx", gain=0.0, inputs={"picture": (1, 3, 64, 64)})
    usual = color(walk, out=tmp_path / "usual")
    without = color(walk, out=tmp_path / "without", preset=by_network(nothing))
    checks = [{record.frame: record.checks["character"] for record in one.listener.records} for one in (usual, without)]
    assert min(checks[0].values()) > 0.1
    assert max(checks[1].values()) == 0


def test_a_changed_network_colors_again_and_a_moved_one_does_not(walk: Path, tmp_path: Path) -> None:
    path = small(tmp_path / "masks.onnx")
    color(walk, preset=by_network(path))
    moved = shutil.copy(path, tmp_path / "other.onnx")
    again = color(walk, preset=by_network(moved))
    assert again.result.totals.skipped == 2 and again.loads == 0
    small(path, metadata={"trained": "a day longer"})
    assert len(color(walk, preset=by_network(path)).colored) == 2


def test_one_network_for_frames_is_not_the_same_for_keys(walk: Path, tmp_path: Path) -> None:
    path = small(tmp_path / "masks.onnx")
    color(walk, preset=by_network(path))
    assert len(color(walk, preset=by_network(None, key_network=str(path))).colored) == 2


def test_a_network_that_is_named_but_not_used_changes_nothing(walk: Path) -> None:
    color(walk)
    again = color(walk, preset=Preset(masks=MaskSettings(network="is/not/there.onnx")))
    assert again.result.totals.skipped == 2


@pytest.mark.parametrize(
    ("preset", "words", "hint"),
    [
        (Preset(masks=MaskSettings(key_network="a.onnx")), "masks.source is auto", "masks.source=network"),
        (Preset(lines=LineSettings(network="a.onnx", extractor="network")), "mode is clean", "lines.mode=extract"),
        (Preset(lines=LineSettings(network="a.onnx", mode="extract")), "extractor is xdog", "extractor=network"),
    ],
)
def test_that_a_network_is_named_but_not_used_is_told_once(
    tmp_path: Path, preset: Preset, words: str, hint: str
) -> None:
    for name in ("sc01", "sc02"):
        draw_shot(tmp_path / "film" / name, (1,))
    request = ShotRequest((str(tmp_path / "film"),), (str(tmp_path / "film" / "key.png"),), preset=preset)
    problems = [problem for plan in plan_shots(request) for problem in plan.problems]
    (problem,) = [problem for problem in problems if problem.kind == "network"]
    assert words in problem.message and hint in (problem.hint or "")


def test_a_missing_network_is_told_with_its_setting_before_anything_is_colored(walk: Path, tmp_path: Path) -> None:
    request = ShotRequest((str(walk),), (str(tmp_path / "key.png"),), preset=by_network(tmp_path / "none.onnx"))
    with pytest.raises(WeightsError, match=r"masks\.network.*none\.onnx"):
        plan_shots(request)
    survey = survey_shots(request)
    assert [type(error) for error in survey.errors] == [WeightsError] and len(survey.plans) == 1
    assert not (tmp_path / "walk_color").exists()


def test_a_network_that_cannot_be_run_ends_the_run_at_once(walk: Path, tmp_path: Path) -> None:
    path = small(tmp_path / "masks.onnx", opset=999)
    outcome = color(walk, preset=by_network(path))
    assert outcome.result.exit_code == WeightsError.exit_code
    assert outcome.result.error is not None and "masks.onnx" in outcome.result.error.message
    assert outcome.colorizer.colored == 0 and outcome.listener.records == []


def test_networks_are_recorded_with_hash_and_license_and_told_once(tmp_path: Path) -> None:
    for name in ("sc01", "sc02"):
        draw_shot(tmp_path / "film" / name, (1,))
    frames = small(tmp_path / "isnet-anime.onnx")
    lines = darkness(tmp_path / "lines.onnx", metadata={"license": "MIT"}, inputs={"picture": (1, 3, 64, 64)})
    preset = by_network(frames).model_copy(
        update={"lines": LineSettings(mode="extract", extractor="network", network=str(lines))}
    )
    outcome = color(tmp_path / "film", ref=tmp_path / "film" / "key.png", preset=preset)
    assert outcome.result.exit_code == 0
    told = [text for text in outcome.listener.warnings if "license" in text]
    assert told == [
        "masks.network: isnet-anime.onnx, license Apache-2.0 (by its name; the file does not say)",
        "lines.network: lines.onnx, license MIT",
    ]
    manifest = read_manifest(outcome.plans[0].out)
    assert [(model.name, model.used_for, model.license, model.license_from) for model in manifest.models] == [
        ("mini", "color", "Apache-2.0", "file"),
        ("isnet-anime.onnx", "masks.network", "Apache-2.0", "name"),
        ("lines.onnx", "lines.network", "MIT", "file"),
    ]
    content = json.loads((outcome.plans[0].out / "manifest.json").read_text())
    jsonschema.validate(content, json.loads(SCHEMA_FILE.read_text()))
    assert str(tmp_path) not in json.dumps(content)


def test_a_manifest_from_before_there_were_networks_is_read() -> None:
    old = {"schema": "colorcli/manifest/1", "shot": "../walk",
           "models": [{"name": "mini", "sha256": "ab" * 32, "license": "Apache-2.0"}]}
    manifest = Manifest.model_validate_json(json.dumps(old))
    assert manifest.models[0].used_for == "color" and manifest.background is None


def test_the_result_does_not_depend_on_threads_or_order(walk: Path, tmp_path: Path) -> None:
    preset = by_network(small(tmp_path / "masks.onnx"))
    whole = color(walk, out=tmp_path / "whole", preset=preset).pictures()
    second = color(walk, out=tmp_path / "second", preset=preset, frames="2").pictures()
    assert second["walk.0002.png"] == whole["walk.0002.png"]
