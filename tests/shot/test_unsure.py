"""Unsure regions from the coloring to the lists that people read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from colorcli.cli.main import main
from colorcli.cli.render import folder_of
from colorcli.images import write_picture
from colorcli.model.evidence import Evidence
from colorcli.prepare.frame import PreparedFrame
from colorcli.presets import CheckSettings, Preset, SamplingSettings, SteadySettings
from colorcli.shot.manifest import FrameRecord, Totals, UnsureRegion, read_manifest, read_records
from colorcli.shot.unsure import unsure_frames
from colorcli.shot.verify import verify_all
from tests.shot.studio import PNG8, FakeColorizer, Float, as_painted, color, draw, draw_key, draw_shot

MATCH = {"sampling": SamplingSettings(start="match")}
BOX = (16, 12, 40, 30)   # left, top, width, height of the region that the colorizer is not sure of


class Doubtful(FakeColorizer):
    """Knows of one region, and is sure of nothing."""

    boxes: Sequence[tuple[int, int, int, int]] = (BOX,)

    def evidence(self, frame: PreparedFrame, decided: float | None, reference: Float) -> Evidence | None:
        labels = np.zeros(frame.mask.shape, np.int32)
        for number, (left, top, width, height) in enumerate(self.boxes, 1):
            labels[top : top + height, left : left + width] = number
        colors = np.array([reference, 1 - reference], np.float32)
        count = len(self.boxes)
        return Evidence(labels, np.full((count, 2), 0.5, np.float32), np.full(count, -3, np.float32), colors)


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    return draw_shot(tmp_path / "walk")


@pytest.fixture
def out(walk: Path) -> Path:
    return color(walk, colorizer=Doubtful(), preset=as_painted(**MATCH)).plans[0].out


def test_the_record_of_a_frame_lists_where_it_is_unsure(out: Path) -> None:
    for record in read_records(out):
        (region,) = record.unsure
        assert (region.box, region.area) == (BOX, 40 * 30)
        assert region.sure < 0.5
        assert (record.checks["unsure"], record.checks["unsure_area"]) == (1, 1.0)


@pytest.mark.parametrize("steady", [False, True])
def test_one_ballot_a_frame_is_enough(walk: Path, steady: bool) -> None:
    colorizer = Doubtful()
    settings = MATCH | {"steady": SteadySettings(on=steady)}
    told = color(walk, colorizer=colorizer, preset=as_painted(**settings)).listener.records
    assert all(record.unsure for record in told)
    assert (colorizer.balloted, colorizer.colored) == (4 if steady else 0, 4)


def test_of_many_the_largest_are_listed_and_all_counted(walk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colorizer = Doubtful()
    colorizer.boxes = [(9 * (n % 10), 1 + 16 * (n // 10), 8, 5 + n % 10 + 1) for n in range(20)]
    record = color(walk, colorizer=colorizer, preset=as_painted(**MATCH)).listener.records[0]
    areas = [region.area for region in record.unsure]
    assert len(areas) == 12
    assert areas == sorted(areas, reverse=True)
    assert areas[0] == 8 * 15
    assert record.checks["unsure"] == 20
    assert main(["manifest", "unsure", str(walk.parent / "walk_color")]) == 0
    assert "32 more regions" in capsys.readouterr().err   # eight of each of four frames


def test_a_run_that_starts_from_noise_and_keeps_the_models_colors_tells_nothing(walk: Path) -> None:
    noise = as_painted(sampling=SamplingSettings(start="noise"))
    records = color(walk, colorizer=Doubtful(), preset=noise).listener.records
    assert all(not record.unsure and "unsure" not in record.checks for record in records)


@dataclass
class Painter(FakeColorizer):
    """Paints everything in one color."""

    fill: tuple[float, float, float] = (0, 0, 0)

    def color(
        self, frames: Sequence[PreparedFrame], reference: Float, preset: Preset, decided: Sequence[float] = ()
    ) -> list[Float]:
        layers = super().color(frames, reference, preset, decided)
        return [np.zeros_like(layer) + np.array(self.fill, np.float32) for layer in layers]


def test_of_a_run_that_starts_from_noise_colors_that_are_none_of_the_keys_are_told(tmp_path: Path) -> None:
    draw_key(tmp_path / "key.png")
    doll = tmp_path / "doll"
    picture = np.ones((64, 96, 3), np.float32)
    picture[10:50, 20:60] = 0
    picture[13:47, 23:57] = 1
    doll.mkdir()
    write_picture(doll / "doll.0001.png", picture, None, PNG8)
    noise = Preset(sampling=SamplingSettings(start="noise"))
    for fill, told in (((0.1, 0.9, 0.2), [(23, 13, 34, 34)]), ((0.8, 0.3, 0.2), [])):   # strange; the key's
        (record,) = color(doll, colorizer=Painter(fill=fill), preset=noise, overwrite=True).listener.records
        assert len(record.unsure) == len(told)
        assert all(np.allclose(region.box, box, atol=3) for region, box in zip(record.unsure, told, strict=True))
        assert all((region.sure, region.other) == (None, None) for region in record.unsure)
        assert record.checks["unsure"] == len(told)


@pytest.mark.parametrize("start", ["match", "noise"])
def test_of_frames_without_a_region_it_is_known_that_none_is_unsure(tmp_path: Path, start: str) -> None:
    draw_key(tmp_path / "key.png")
    blank = tmp_path / "blank"
    blank.mkdir()
    write_picture(blank / "blank.0001.png", np.ones((64, 96, 3), np.float32), None, PNG8)
    settings = Preset(sampling=SamplingSettings(start=start))
    colorizer = Doubtful()
    colorizer.boxes = ()
    (record,) = color(blank, colorizer=colorizer, preset=settings).listener.records
    assert (record.checks["unsure"], record.checks["unsure_area"], record.unsure) == (0, 0.0, ())


def test_another_threshold_colors_nothing_anew(walk: Path, out: Path) -> None:
    surer = as_painted(**MATCH, checks=CheckSettings(unsure_below=0.01))
    again = color(walk, colorizer=Doubtful(), preset=surer)
    assert again.colored == []
    assert all(record.unsure for record in read_records(out))   # what was told when they were colored
    anew = color(walk, colorizer=Doubtful(), preset=surer, overwrite=True)
    assert all(record.checks["unsure"] == 0 for record in anew.listener.records)


@pytest.mark.parametrize("start", ["match", "noise"])
def test_where_nothing_is_looked_for_nothing_is_known(walk: Path, start: str) -> None:
    silent = Preset(sampling=SamplingSettings(start=start), checks=CheckSettings(unsure_below=0.0))
    records = color(walk, colorizer=Doubtful(), preset=silent).listener.records
    assert all(record.status == "written" and "unsure" not in record.checks for record in records)


def test_a_second_run_keeps_what_was_told_and_colors_one_that_is_new(walk: Path, out: Path) -> None:
    before = {record.frame: record.unsure for record in read_records(out)}
    draw(walk / "walk.0005.png", 5)
    again = color(walk, colorizer=Doubtful(), preset=as_painted(**MATCH))
    assert again.colored == ["walk.0005"]
    after = {record.frame: record.unsure for record in read_records(out)}
    assert {name: after[name] for name in before} == before
    assert after["walk.0005"]


def test_verify_and_the_counts_of_the_manifest_know_them(out: Path) -> None:
    (report,) = verify_all([out])
    assert report.findings == ()
    assert read_manifest(out).totals.unsure == 4


def test_a_frame_of_which_little_is_unsure_is_listed_but_not_counted(out: Path) -> None:
    first, *_ = read_records(out)
    little, enough = (
        first.model_copy(update={"checks": first.checks | {"unsure_area": share}}) for share in (0.0099, 0.01)
    )
    assert [Totals.of([record]).unsure for record in (little, enough)] == [0, 1]
    assert len(unsure_frames(out, "walk", [little])) == 1


def test_a_held_drawing_is_told_once(walk: Path) -> None:
    (walk / "walk.0005.png").write_bytes((walk / "walk.0004.png").read_bytes())
    out = color(walk, colorizer=Doubtful(), preset=as_painted(**MATCH)).plans[0].out
    records = read_records(out)
    assert records[4].status == "held"
    assert records[4].unsure == records[3].unsure
    assert [frame.frame for frame in unsure_frames(out, "walk", records)] == [f"walk.000{n}" for n in (1, 2, 3, 4)]
    assert Totals.of(records).unsure == 4


def test_records_of_before_and_damaged_ones_are_told_apart() -> None:
    plain = {"frame": "a", "status": "written"}
    assert not FrameRecord.model_validate(plain | {"checks": {"ink": 0.1}}).is_unsure
    region = {"box": [0, 0, 4, 4], "area": 16, "color": "#aabbcc", "sure": 0.5}
    assert UnsureRegion.model_validate(region).other is None
    for wrong in ({"color": "red\"><script>"}, {"box": [0, -1, 4, 4]}, {"sure": 2}, {"box": [1, 2, 3]}):
        with pytest.raises(ValueError, match="1 validation error"):
            UnsureRegion.model_validate(region | wrong)


def test_a_chance_that_is_not_known_is_below_no_other(out: Path) -> None:
    first, *_ = read_records(out)
    (region,) = first.unsure
    guessed = first.model_copy(update={"unsure": (region.model_copy(update={"sure": None}),)})
    assert [len(unsure_frames(out, "walk", [guessed], below)) for below in (None, 1.0)] == [1, 0]


def test_what_somebody_wrote_into_a_record_by_hand_stops_no_list(out: Path) -> None:
    first, *_ = read_records(out)
    damaged = first.model_copy(update={"checks": {"unsure": "many", "unsure_area": "much"}})
    (told,) = unsure_frames(out, "walk", [damaged])
    assert (told.count, told.area) == (1, 0.0)


def test_the_run_says_how_many_frames_to_look_at(walk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [str(walk), "--ref", str(walk.parent / "key.png"), "--engine", "stand-in"]
    assert main([*line, "--set", "checks.unsure_below=1"]) == 0
    told = capsys.readouterr()
    assert "4 frames have regions to look at" in told.err
    assert f"try:   colorcli review {walk}_color shows them" in told.err
    assert main([*line, "--overwrite", "--set", "checks.unsure_below=0"]) == 0
    assert "to look at" not in capsys.readouterr().err


def test_of_several_results_the_folder_around_them_is_named() -> None:
    assert folder_of([Path("a_color")]) == "a_color"
    assert folder_of([Path("/shows/demo/color/c1"), Path("/shows/demo/color/sc2/c1")]) == "/shows/demo/color"
    for apart in ([Path("a_color"), Path("b_color")], [Path("/a"), Path("/b")], [Path("/a"), Path("b")]):
        assert folder_of(apart) == "OUT"


def test_a_table_for_people_and_json_for_scripts(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manifest", "unsure", str(out)]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["frame", "left,top", "size", "color", "or", "sure", "in"]
    assert [row.split()[:3] for row in rows] == [[f"walk.000{n}", "16,12", "40x30"] for n in (1, 2, 3, 4)]
    assert main(["manifest", "unsure", "--json", str(out)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "colorcli/unsure/1"
    first = told["frames"][0]
    assert (first["frame"], first["output"], first["count"], first["area"]) == ("walk.0001", "walk.0001.png", 1, 1.0)
    assert first["regions"][0]["box"] == list(BOX)
    assert main(["manifest", "unsure", str(out), "--below", "0.01"]) == 0
    assert capsys.readouterr().out == "no region is less sure than 0.01\n"


def test_of_a_run_that_was_killed_before_its_manifest_what_is_recorded_is_listed(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "manifest.json").unlink()
    assert main(["manifest", "unsure", "--json", str(out)]) == 0
    frames = json.loads(capsys.readouterr().out)["frames"]
    assert [frame["frame"] for frame in frames] == [f"walk.000{n}" for n in (1, 2, 3, 4)]
    assert {frame["shot"] for frame in frames} == {"walk_color"}


def test_the_manifest_itself_stands_for_its_folder(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for named in (out, out / "manifest.json"):
        assert main(["manifest", "unsure", str(named)]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] != "no region is unsure\n"


def test_frames_of_which_nothing_is_known_are_not_called_sure(walk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = color(walk, preset=as_painted(**MATCH)).plans[0].out
    assert main(["manifest", "unsure", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out == "no region is known to be unsure\n"
    assert "of 4 frames nothing is known" in printed.err
    assert main(["manifest", "unsure", "--json", str(out)]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": "colorcli/unsure/1", "frames": [], "unknown": 4}


def test_the_stand_in_is_sure_of_what_lies_where_the_key_has_it(walk: Path) -> None:
    line = [str(walk), "--ref", str(walk.parent / "key.png"), "--engine", "stand-in", "-q"]
    assert main(line) == 0
    assert [record.checks["unsure"] for record in read_records(walk.parent / "walk_color")] == [0] * 4
    assert main([*line, "--overwrite", "--set", "checks.unsure_below=1"]) == 0
    for number, record in enumerate(read_records(walk.parent / "walk_color"), 1):
        (region,) = record.unsure
        # `drawing` has the inside of its box there.
        assert np.allclose(region.box, (8 + 3 * number + 3, 8 + 2 * number + 3, 29, 29), atol=3)
        assert region.sure is not None
        assert region.sure > 0.9
