"""`prepare`: pictures of what the model will see."""

import json

import numpy as np
import pytest

from colorcli.errors import ShotError
from colorcli.images import read_picture
from colorcli.presets import Preset
from colorcli.shot.frames import find_shots
from colorcli.shot.plan import ShotRequest, plan_shots
from colorcli.shot.preview import write_preview
from tests.shot.studio import draw, draw_shot


def preview(tmp_path, **asked):
    request = ShotRequest((str(tmp_path / "walk"),), (str(tmp_path / "key.png"),), tmp_path / "seen", **asked)
    (plan,) = plan_shots(request)
    return write_preview(plan, request.preset)


def test_every_frame_gives_its_lines_and_its_mask_at_canvas_size(tmp_path):
    draw_shot(tmp_path / "walk", (1, 2))
    written = preview(tmp_path)
    names = {path.name for path in (tmp_path / "seen").iterdir()}
    assert names == {
        "walk.0001.lines.png", "walk.0001.mask.png", "walk.0002.lines.png", "walk.0002.mask.png",
        "key.color.png", "key.bleached.png", "key.mask.png", "key.lines.png", "overview.png", "prepare.json",
    }
    assert {path.name for path in written.pictures} == names - {"prepare.json"}
    note = json.loads((tmp_path / "seen" / "prepare.json").read_text())["frames"]["walk.0001"]
    lines, mask = (read_picture(tmp_path / "seen" / f"walk.0001.{what}.png") for what in ("lines", "mask"))
    assert lines.size == mask.size == tuple(note["canvas"])
    assert note["source"] == [96, 64]


def test_lines_are_black_on_white_and_the_closed_box_is_the_character(tmp_path):
    draw_shot(tmp_path / "walk", (1,))
    preview(tmp_path)
    lines = read_picture(tmp_path / "seen" / "walk.0001.lines.png").color
    mask = read_picture(tmp_path / "seen" / "walk.0001.mask.png").color[:, :, 0]
    assert np.median(lines) == 1.0
    assert lines.min() < 0.3
    middle = tuple(side // 2 for side in mask.shape)
    assert mask[middle] == 1.0
    assert mask[0, 0] == 0.0


def test_the_bleached_key_has_lost_its_character(tmp_path):
    draw_shot(tmp_path / "walk", (1,))
    preview(tmp_path)
    color = read_picture(tmp_path / "seen" / "key.color.png").color
    bleached = read_picture(tmp_path / "seen" / "key.bleached.png").color
    middle = tuple(side // 2 for side in color.shape[:2])
    assert color[middle].min() < 0.4
    assert bleached[middle].min() > 0.9


def test_a_frame_that_cannot_be_read_is_listed_and_the_others_are_there(tmp_path):
    draw_shot(tmp_path / "walk", (1, 2))
    (tmp_path / "walk" / "walk.0001.png").write_bytes(b"")
    written = preview(tmp_path)
    assert [job.name for job, _ in written.failed] == ["walk.0001"]
    assert (tmp_path / "seen" / "walk.0002.lines.png").exists()


def test_two_pictures_of_one_name_do_not_take_each_others_place(tmp_path):
    draw_shot(tmp_path / "walk", (1,))
    draw(tmp_path / "walk" / "title.png")
    draw(tmp_path / "walk" / "title.tga")
    names = {path.name for path in preview(tmp_path).pictures}
    assert {"title.png.lines.png", "title.tga.lines.png"} <= names


def test_the_pictures_of_a_preview_are_no_shot(tmp_path):
    draw_shot(tmp_path / "film" / "walk", (1,))
    request = ShotRequest((str(tmp_path / "film/walk"),), (str(tmp_path / "film/key.png"),), tmp_path / "film" / "seen")
    (plan,) = plan_shots(request)
    write_preview(plan, Preset())
    (tmp_path / "film/key.png").unlink()
    assert [shot.name for shot in find_shots(tmp_path / "film")] == ["walk"]


def test_a_long_shot_is_shown_in_a_dozen_rows(tmp_path):
    draw_shot(tmp_path / "walk", range(1, 31))
    preview(tmp_path)
    assert read_picture(tmp_path / "seen" / "overview.png").size[1] < 13 * (256 + 8) + 8


def test_a_shot_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ShotError):
        preview(tmp_path)
