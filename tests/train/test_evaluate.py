"""The evaluation takes the path of a real shot, and tells a good colorizer from a bad one."""

import shutil

import numpy as np
import pytest

from colorcli.errors import KeyImageError, ShotError
from colorcli.images import read_picture, write_picture
from colorcli.prepare.canvas import to_canvas
from colorcli.presets import Preset
from colorcli.train.evaluate import evaluate_shots, find_known_shots, mean_row
from colorcli.variants import VARIANTS
from tests.finish.studio import FORMATS, face, flats

MINI = VARIANTS["mini"]


class Painter:
    """Gives one picture, whatever the frame is: the right colors, or a wrong one."""

    def __init__(self, colors):
        self.colors = colors

    def encode_reference(self, key, preset):
        return key

    def color(self, frames, reference, preset):
        return [to_canvas(self.colors, frame.canvas, 1) for frame in frames]

    def describe(self):
        return {}


@pytest.fixture
def data(tmp_path):
    """Two shots of two frames: in `upright` the key is the frame itself, in `turned` it is upside down."""
    drawn, truth, alpha = face()
    for name, key in (("upright", truth), ("turned", truth[::-1, ::-1])):
        for folder in ("line", "color"):
            (tmp_path / name / folder).mkdir(parents=True)
        for number in range(2):
            file = f"{name}.{number:04}.png"
            write_picture(tmp_path / name / "line" / file, drawn, alpha, FORMATS["png8"])
            write_picture(tmp_path / name / "color" / file, truth, alpha, FORMATS["png8"])
        write_picture(tmp_path / name / "key.png", np.ascontiguousarray(key), alpha, FORMATS["png8"])
    return tmp_path


def evaluate(data, colors=None, **options):
    painter = Painter(flats() if colors is None else colors)
    return evaluate_shots(data, Preset(), colorizer=painter, variant=MINI, **options)


def test_a_painter_without_mistakes_gets_every_region_right(data):
    for row in evaluate(data):
        assert (row.frames, row.regions) == (2, 8)
        assert row.scores["accuracy"] == row.scores["area_accuracy"] == 1
        assert row.scores["flicker"] == row.scores["levels"] == 0
        assert row.scores["seconds_per_frame"] > 0 and 0 < row.scores["network_share"] < 1


def test_a_painter_with_one_color_gets_one_region_right(data):
    red = np.ascontiguousarray(np.broadcast_to(flats()[0, 0], flats().shape))
    assert [row.scores["accuracy"] for row in evaluate(data, red)] == [0.25, 0.25]


def test_the_baselines_see_whether_the_key_fits_the_pose(data):
    rows = {row.shot: row for row in evaluate(data)}
    assert rows["upright"].scores["copied_key"] == 1
    assert rows["upright"].scores["painted_key"] == 0.75  # the fourth color is so dark that it passes for line
    assert rows["turned"].scores["copied_key"] == rows["turned"].scores["painted_key"] == 0


def test_crossing_pairs_every_key_with_every_shot(data):
    rows = evaluate(data, cross=True)
    assert [(row.shot, row.key) for row in rows] == [
        ("turned", "turned"), ("turned", "upright"), ("upright", "turned"), ("upright", "upright"),
    ]
    crossed = next(row for row in rows if (row.shot, row.key) == ("turned", "upright"))
    assert crossed.scores["copied_key"] == 1
    assert [row.pairing for row in rows] == ["own", "cross", "cross", "own"]


def test_the_colored_frames_are_kept_on_demand(data, tmp_path):
    evaluate(data, out=tmp_path / "kept")
    kept = read_picture(tmp_path / "kept" / "upright--upright" / "upright.0001.png")
    assert kept.size == (300, 240)
    assert np.allclose(kept.color[80, 110], flats()[80, 110], atol=0.02)


def test_rows_arrive_one_by_one(data):
    seen = []
    rows = evaluate(data, on_row=seen.append)
    assert seen == rows
    assert mean_row(rows).regions == 16
    assert mean_row(rows).scores["accuracy"] == 1


def test_one_shot_folder_can_be_given_itself(data):
    assert [shot.name for shot in find_known_shots(data / "upright")] == ["upright"]


def test_a_folder_without_known_shots_is_refused(tmp_path):
    with pytest.raises(ShotError, match="no shot with known colors"):
        evaluate(tmp_path)
    with pytest.raises(ShotError, match="no folder"):
        evaluate(tmp_path / "nowhere")


def test_a_drawing_without_its_truth_is_named(data):
    (data / "upright" / "color" / "upright.0001.png").unlink()
    with pytest.raises(ShotError, match=r"upright\.0001\.png is missing"):
        evaluate(data)


def test_a_missing_or_broken_key_is_named(data):
    (data / "upright" / "key.png").write_text("no picture")
    with pytest.raises(KeyImageError, match=r"key\.png"):
        evaluate(data)
    (data / "upright" / "key.png").unlink()
    with pytest.raises(ShotError, match=r"no key\.png"):
        evaluate(data)


def test_an_empty_line_folder_is_named(data):
    shutil.rmtree(data / "turned" / "line")
    (data / "turned" / "line").mkdir()
    with pytest.raises(ShotError, match="holds no frames"):
        evaluate(data)
