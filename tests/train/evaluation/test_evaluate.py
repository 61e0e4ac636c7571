"""The evaluation takes the path of a real shot, and tells a good colorizer from a bad one."""

import shutil

import numpy as np
import pytest

from colorcli.errors import FrameError, KeyImageError, ShotError, UsageError
from colorcli.images import over_paper, read_picture, write_picture
from colorcli.prepare.canvas import to_canvas
from colorcli.presets import Preset
from colorcli.train.data.archives import png_bytes, write_archives
from colorcli.train.evaluation.evaluate import Group, Observers, Plan, evaluate_shots, mean_row, notes_on, pairs_of
from colorcli.train.evaluation.evaluate import evaluate as run
from colorcli.train.evaluation.truths import find_known_pictures, find_known_shots, first_frames, is_training_set
from colorcli.variants import VARIANTS
from tests.finish.studio import FORMATS, face, flats

MINI = VARIANTS["mini"]


class Painter:
    """Gives one picture, whatever the frame is: the right colors, or a wrong one."""

    def __init__(self, colors):
        self.colors = colors

    def encode_reference(self, key, preset):
        return key

    def color(self, frames, reference, preset, decided=()):
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


# --- the plan ------------------------------------------------------------------------------------------------------


def test_the_shuffled_pairs_of_the_papers_take_the_fourth_key_after():
    shuffled = [pair for pair in pairs_of(10, Plan(shuffled=True)) if pair[2] == "shuffled"]
    assert [owner for _, owner, _ in shuffled] == [4, 5, 6, 7, 8, 9, 0, 1, 2, 3]
    # Where the fourth after is the shot itself, the next one's key is taken.
    assert [(shot, owner) for shot, owner, pairing in pairs_of(4, Plan(shuffled=True)) if pairing == "shuffled"] == [
        (0, 1), (1, 2), (2, 3), (3, 0),
    ]
    assert [pair for pair in pairs_of(3, Plan()) if pair[0] != pair[1]] == []


def test_a_plan_that_one_shot_is_too_few_for_is_refused(data):
    shutil.rmtree(data / "turned")
    for plan in (Plan(shuffled=True), Plan(metrics=("drift",))):
        with pytest.raises(UsageError, match="there is one"):
            measured(data, plan)


def measured(data, plan, colorizer=None, **options):
    return run(find_known_shots(data), Preset(), MINI, colorizer or Painter(flats()), plan, **options)


class KeyPainter(Painter):
    """Paints the key itself wherever it is asked to color: geometry comes from the key alone."""

    def color(self, frames, reference, preset, decided=()):
        return [to_canvas(over_paper(reference.picture), frame.canvas, 1) for frame in frames]


class Voter(Painter):
    """Knows a frame by its ink, and notes what each was colored by."""

    def __init__(self, colors):
        super().__init__(colors)
        self.heard = []

    def ballot(self, frame, reference, preset):
        return float(frame.lines.ink.sum())

    def link(self, one, other):
        return one, other

    def decide(self, ballots, own, links):
        return ballots[own], ballots, links

    def color(self, frames, reference, preset, decided=()):
        ((own, ballots, links),) = decided
        assert own == self.ballot(frames[0], reference, preset)
        assert links == {(0, 1): tuple(ballots)}
        self.heard.append(ballots)
        return super().color(frames, reference, preset)


def test_steady_frames_are_colored_by_what_is_decided_with_those_around_them(data):
    shutil.rmtree(data / "turned")
    path = data / "upright" / "line" / "upright.0001.png"
    line = read_picture(path)
    color = line.color.copy()
    color[:40, :4], line.alpha[:40, :4] = 0, 1   # else it would be held
    write_picture(path, color, line.alpha, FORMATS["png8"])
    voter = Voter(flats())
    run(find_known_shots(data), Preset.model_validate({"steady": {"on": True}}), MINI, voter)
    first, second = voter.heard
    assert first == second
    assert len(set(first)) == 2


def test_shuffled_rows_say_nothing_of_regions_since_the_key_has_other_colors(data):
    found = measured(data, Plan(shuffled=True))
    assert [group.pairing for group in found.groups] == ["own", "shuffled"]
    own, shuffled = found.groups
    assert (own.scores["accuracy"], own.regions) == (1, 16)
    assert (shuffled.scores["accuracy"], shuffled.regions) == (None, 0)
    assert shuffled.scores["flicker"] == 0


def test_psnr_tells_a_painter_without_mistakes_from_one_with_one_color(data):
    plan = Plan(metrics=("psnr", "ms-ssim"))
    red = np.ascontiguousarray(np.broadcast_to(flats()[0, 0], flats().shape))
    good, bad = (measured(data, plan, Painter(colors)).groups[0].scores for colors in (flats(), red))
    assert good["psnr"] > 30 > 20 > bad["psnr"]
    assert 1 >= good["ms_ssim"] > 0.98 > bad["ms_ssim"]


def test_drift_is_zero_where_keys_do_not_matter_and_is_not_where_the_key_is_painted(data):
    _, truth, alpha = face()
    write_picture(data / "turned" / "key.png", np.roll(truth, 25, axis=1), np.roll(alpha, 25, axis=1), FORMATS["png8"])
    plan = Plan(metrics=("drift", "lines"))
    deaf, copier = (measured(data, plan, painter).groups[0].scores for painter in (Painter(flats()), KeyPainter(None)))
    assert deaf["drift"] == pytest.approx(0, abs=1e-6)
    assert deaf["line_drift"] == 0
    assert copier["drift"] > 1
    assert copier["line_drift"] > 0.05


def test_fid_is_of_the_whole_set_and_carries_the_name_of_its_network(data):
    plan = Plan(metrics=("fid",), shuffled=True)
    red = np.ascontiguousarray(np.broadcast_to(flats()[0, 0], flats().shape))
    good, bad = (measured(data, plan, Painter(colors)).groups for colors in (flats(), red))
    assert set(good[0].scores) == {"fid (mini tagger features)", "kid (mini tagger features)"}
    assert good[0].frames == good[1].frames == 4
    assert good[0].scores["fid (mini tagger features)"] < bad[0].scores["fid (mini tagger features)"]


def test_the_truth_is_measured_too_where_its_score_is_not_known_beforehand(data):
    found = measured(data, Plan(metrics=("tags", "lines", "psnr"), shuffled=True))
    (upright, *_) = [row for row in found.rows if row.shot == "upright" and row.pairing == "own"]
    # The key is the frame itself, so the truth agrees with it in full.
    assert upright.truth["tag_agreement"] == 1
    assert upright.truth["part_colors"] == pytest.approx(0, abs=1e-6)
    assert upright.truth["line_agreement"] > 0.9
    assert "psnr" not in upright.truth


def test_a_judge_that_takes_all_keys_for_one_is_told_of():
    groups = [Group(pairing, 1, 1, 0, {}, {"image_similarity": score, "part_colors": 3.0})
              for pairing, score in (("own", 0.995), ("shuffled", 0.99))]
    (note,) = notes_on(groups)
    assert "image sim. hardly tells the keys apart" in note
    assert notes_on(groups[:1]) == []


def test_the_digest_is_of_the_pictures_not_of_the_model(data):
    red = np.ascontiguousarray(np.broadcast_to(flats()[0, 0], flats().shape))
    first, same = measured(data, Plan()), measured(data, Plan(), Painter(red))
    assert first.digest == same.digest
    write_picture(data / "turned" / "key.png", *face()[1:], FORMATS["png8"])
    assert measured(data, Plan()).digest != first.digest


def test_a_limit_keeps_the_first_frames_of_every_shot(data):
    shots = find_known_shots(data)
    assert [[len(shot.frames) for shot in first_frames(shots, limit)] for limit in (None, 2, 3, 1)] == [
        [2, 2], [1, 1], [1, 1], [1],
    ]


# --- training sets -------------------------------------------------------------------------------------------------


@pytest.fixture
def training_set(tmp_path):
    """Five pictures in archives, the second of them cut off."""
    drawn, truth, alpha = face()
    pictures = {"color": truth, "sketch": drawn, "mask": alpha}
    with write_archives(tmp_path / "set", "0001", tuple(pictures)) as writer:
        for number in range(5):
            for kind, picture in pictures.items():
                data = png_bytes(np.rint(picture * 255).astype(np.uint8))
                broken = kind == "color" and number == 1
                writer.add(kind, f"{number}.png", data[:200] if broken else data)
    return tmp_path / "set"


def test_a_training_set_is_measured_and_what_cannot_be_read_is_counted(training_set):
    assert is_training_set(training_set)
    known = find_known_pictures(training_set)
    assert [one.name for one in known] == [f"0001/{number}.png" for number in range(5)]
    told = []
    plan = Plan(metrics=("psnr", "regions"), shuffled=True, shift=2)
    found = run(known, Preset(), MINI, Painter(flats()), plan, observers=Observers(skipped=told.append), pass_over=True)
    assert [row.key for row in found.rows if row.pairing == "own"] == [f"0001/{number}.png" for number in (0, 2, 3, 4)]
    # With the broken picture go its own two rows and that of the drawing which has it for its key.
    assert [row.shot for row in found.rows if row.pairing == "shuffled"] == ["0001/0.png", "0001/2.png", "0001/3.png"]
    assert len(found.skipped) == 3 and all("0001/1.png" in reason for reason in found.skipped)
    assert list(found.skipped) == told
    assert found.groups[0].scores["psnr"] > 30
    assert found.groups[0].scores["accuracy"] == 1


def test_a_key_that_cannot_be_read_costs_no_other_picture_its_drift(training_set):
    known = find_known_pictures(training_set)[:3]
    found = run(known, Preset(), MINI, Painter(flats()), Plan(metrics=("drift",)), pass_over=True)
    assert [row.shot for row in found.rows] == ["0001/0.png", "0001/2.png"]
    assert [row.scores["drift"] for row in found.rows] == pytest.approx([0, 0], abs=1e-6)


def test_a_part_of_a_training_set_is_spread_over_it(training_set):
    assert [one.name for one in find_known_pictures(training_set, 2)] == ["0001/0.png", "0001/2.png"]
    assert len(find_known_pictures(training_set, 99)) == 5


def test_the_mask_of_a_training_set_is_the_character(training_set):
    mask = find_known_pictures(training_set)[0].read_key_mask()
    assert mask.shape == (240, 300)
    assert mask[120, 150] == 1 and mask[0, 0] == 0


def test_a_set_of_which_nothing_can_be_read_is_refused(training_set):
    known = find_known_pictures(training_set)[1:2]
    with pytest.raises(FrameError, match="none of 1 pictures can be read"):
        run(known, Preset(), MINI, Painter(flats()), Plan(), pass_over=True)
