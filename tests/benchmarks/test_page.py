"""The page on speed is filled from files, and what is fitted is what was put in."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks.page import TABLES, filled, shot_table
from benchmarks.plot import Line, Panel, figure
from benchmarks.scale import at, drawn, fit
from benchmarks.shot import summed_up
from benchmarks.shots import hold
from tests.shot.studio import draw

PAGE = Path(__file__).parent.parent.parent / "docs" / "speed.md"
MACHINE = {"processor": "a processor", "cores": 2, "load": 0.5, "libraries": {"torch": "2"}}
SVG = "{http://www.w3.org/2000/svg}"


def test_a_straight_line_is_found_again_through_its_points():
    found = fit([(n, 3 + 0.25 * n) for n in (1, 2, 8, 100)], (0, 1))
    assert found["constants"] == pytest.approx({"0": 3, "1": 0.25})
    assert found["misses"] == 0
    assert at(found["constants"], 20) == pytest.approx(8)


def test_a_square_is_found_and_a_term_that_would_win_time_is_left_out():
    assert fit([(n, 2e-6 * n + 1e-12 * n * n) for n in (65536, 262144, 1048576)], (0, 1, 2))["constants"].keys() >= {
        "1", "2"
    }
    assert set(fit([(1, 1.0), (2, 2.2), (4, 4.8)], (0, 1))["constants"]) == {"1"}   # a line through them starts below 0


def test_a_fit_says_how_far_the_worst_point_lies_off():
    assert fit([(1, 1.0), (2, 2.0), (3, 3.6)], (1,))["misses"] == pytest.approx(0.1, abs=0.05)


def test_twos_are_compared_by_frames_a_second():
    seconds = {"plain_ones": [30.0], "plain_twos": [60.0], "ours_ones": [10.0], "ours_twos": [10.0]}
    found = summed_up({"every_second": seconds}, {"ones": {}, "twos": {}})
    assert found["twos_against_ones"]["ratio"]["median"] == 2
    assert [found["against_plain"][held]["ratio"]["median"] for held in ("ones", "twos")] == [3, 6]


def test_every_table_has_its_place_on_the_page():
    page = PAGE.read_text(encoding="utf-8")
    for name in TABLES:
        assert page.index(f"<!-- {name} -->") < page.index(f"<!-- /{name} -->"), name


def test_only_what_was_measured_is_filled_in():
    page = "a\n<!-- busy -->\nold\n<!-- /busy -->\nb\n<!-- scale -->\nkept\n<!-- /scale -->\n"
    found = {"quiet": {"median": 1.0}, "beside": {"median": 2.0}}
    ratio = {"median": 2.0, "low": 1.9, "high": 2.1}
    busy = {"machine": MACHINE, "load_after": 9, "threads_that_wait": {
        "sleeping": {"seconds_per_frame": found, "slowdown": ratio}}}
    made = filled(page, {"busy": busy})
    assert "old" not in made and "kept" in made and "**2.00** (1.90 to 2.10)" in made
    assert "others used as well" in made   # a load of 9 on two cores
    assert filled(made, {"busy": busy}) == made


def test_half_a_mark_on_the_page_is_refused():
    with pytest.raises(ValueError, match="only one"):
        filled("<!-- busy -->", {})


def test_a_difference_is_told_in_levels_beside_the_speed():
    ratio = {"median": 3.0, "low": 2.9, "high": 3.1}
    result = {
        "runs": {"seconds": {name: {"median": 1.0} for name in ("plain_ones", "ours_ones")}},
        "frames": {"ones": 4}, "drawings": 4, "twos_against_ones": {"ratio": ratio},
        "against_plain": {"ones": {"ratio": ratio, "equivalence": {"max_difference": 1 / 255, "delta_e_p99": 0.0}}},
    }
    assert "| 1 of 255 | 0 |" in shot_table(result)


def test_a_plot_reaches_from_its_first_to_its_last_point():
    picture = ET.fromstring(figure([Panel("time", "a note", [Line([(10, 1.0), (20, 2.0), (30, 5.0)])])]))
    (line,) = picture.iter(f"{SVG}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert points[0] == (0.0, 120.0) and points[-1] == (200.0, 0.0)


def test_a_measured_axis_is_drawn_as_points_over_its_line():
    axis = {"points": [(1, 1.0), (2, 2.0)], "unit": "frames", "fit": {"constants": {"1": 1.0}, "misses": 0.0}}
    picture = ET.fromstring(drawn({"frames": axis}))
    assert len(list(picture.iter(f"{SVG}circle"))) == 2
    assert len(list(picture.iter(f"{SVG}polyline"))) == 1


def test_held_drawings_are_copies_and_others_are_not(tmp_path):
    draw(tmp_path / "shot" / "walk.0001.png")
    draw(tmp_path / "shot" / "walk.0002.png", 2)
    held = [file.read_bytes() for file in sorted(hold(tmp_path / "shot", 3).iterdir())]
    assert len(held) == 6 and len(set(held)) == 2
    (tmp_path / "shot" / "walk.0002.png").unlink()
    assert len({file.read_bytes() for file in hold(tmp_path / "shot", 4, alike=False).iterdir()}) == 4
