"""The table of what each part of the training is good for: its rows, what is read of results, what is printed."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.ablation import (
    COLUMNS,
    RECIPE,
    ROWS,
    STAGE,
    TESTS,
    Column,
    compare,
    markdown,
    result_file,
    results,
    run_of,
    together,
    without_tagger,
    write_result,
)
from benchmarks.curve import curve_of, picture
from benchmarks.plugin import measured
from colorcli.train.evaluation.file import SavedEvaluation, read_evaluation
from colorcli.train.recipe import Recipe, read_recipe
from colorcli.train.stages import STAGES

# What each row is trained with: whether with the Gram loss, whether with the tagger, which reference.
MEANT = {
    "full": (True, True, "mixed"),
    "no-gram": (False, True, "mixed"),
    "no-tagger": (True, False, "mixed"),
    "no-tagger-no-gram": (False, False, "mixed"),
    "other": (True, True, "other"),
    "same": (False, True, "same"),
    "same-gram": (True, True, "same"),
}


def recipe_of(row: str, seed: int = 1) -> Recipe:
    return read_recipe(RECIPE, ROWS[row].overrides(f"try-{row}", seed))


def evaluation(name: str, accuracy: list[float], fid: float) -> SavedEvaluation:
    rows = [{"shot": f"shot {n}", "key": "k", "pairing": "own", "accuracy": value} for n, value in enumerate(accuracy)]
    scores = {"accuracy": float(np.mean(accuracy)), "fid (mini tagger features)": fid}
    return SavedEvaluation(name, tuple(rows), {"groups": [{"pairing": "own", "scores": scores}]})


def test_every_trained_row_is_meant() -> None:
    assert {name for name, row in ROWS.items() if row.trained} == set(MEANT)


@pytest.mark.parametrize("row", MEANT)
def test_a_row_leaves_out_what_it_says_and_nothing_else(row: str) -> None:
    stage = next(stage for stage in recipe_of(row).stages if stage.name == STAGE)
    assert (stage.gram.weight > 0, stage.ablation.tagger, stage.ablation.reference) == MEANT[row]
    assert ROWS[row].tagger == stage.ablation.tagger   # a row is measured as it was trained


@pytest.mark.parametrize("row", MEANT)
def test_rows_differ_in_nothing_but_the_gram_loss_and_the_ablation(row: str) -> None:
    def rest(recipe: Recipe) -> dict[str, Any]:
        plain = recipe.model_dump(exclude={"name"})
        for stage in plain["stages"]:
            del stage["gram"], stage["ablation"]
        return plain

    assert rest(recipe_of(row)) == rest(recipe_of("full"))


def test_without_the_tagger_the_projection_gets_zeros_for_it_and_all_of_clip() -> None:
    projection = torch.nn.Bilinear(3, 2, 1, bias=False)
    projection.register_forward_pre_hook(without_tagger)
    clip, tags = torch.ones(1, 3), torch.ones(1, 2)
    assert projection(clip, tags).item() == 0.0
    assert without_tagger(projection, (clip, tags))[0] is clip


def test_several_seeds_are_the_mean_of_sets_and_all_rows() -> None:
    both = together([evaluation("a", [0.2, 0.4], 10.0), evaluation("a", [0.6, 0.8], 20.0)])
    assert both.summary["groups"][0]["scores"] == {
        "accuracy": pytest.approx(0.5), "fid (mini tagger features)": 15.0
    }
    assert len({row["shot"] for row in both.rows}) == 4


def test_the_table_holds_every_row_against_the_first() -> None:
    # Changes 0.2, 0.1, 0.3: mean 0.2, deviation 0.1, standard error 0.1 / sqrt(3) = 0.058.
    compared = compare([evaluation("full", [0.1, 0.2, 0.3], 4.0), evaluation("same", [0.3, 0.3, 0.6], 3.5)])
    columns = (Column("right ↑", "noise", "own", "accuracy"), Column("FID ↓", "noise", "own", "fid"),
               Column("drift ↓", "noise", "own", "drift"))
    table = markdown(["full", "same"], {"noise": compared.scores}, columns).splitlines()
    assert table[0] == "|  | right ↑ | FID ↓ | drift ↓ |"
    assert table[2] == f"| {ROWS['full'].words} | 0.200 | 4.00 | - |"
    assert table[3] == f"| {ROWS['same'].words} | 0.400 (+0.200 ± 0.058)* | 3.50 (-0.50) | - |"


def test_a_result_that_is_written_is_read_as_one_of_evaluate(tmp_path: Path) -> None:
    file = tmp_path / "results" / "full-1.loss.json"
    write_result(file, [{"shot": "a", "pairing": "own"}], {"schema": "colorcli/evaluation/1", "groups": []})
    assert [row["shot"] for row in read_evaluation(file).rows] == ["a"]
    assert list(file.parent.iterdir()) == [file]


def test_only_rows_that_are_measured_in_full_come_into_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLORCLI_RUNS", str(tmp_path))
    recipe = recipe_of("full")
    for row, tests in (("full", list(TESTS)), ("same", list(TESTS)), ("other", list(TESTS)[:-1])):
        run_of(recipe, row, 1).mkdir()
        (run_of(recipe, row, 1) / "done.json").write_text('{"steps": 5}')
        for test in tests:
            summary = {"schema": "colorcli/evaluation/1", "groups": [{"pairing": "own", "scores": {"drift": 1.5}}]}
            write_result(result_file(recipe, row, 1, test), [], summary)
    whole, compared, plain = results(recipe, ["full", "same", "other"], [1], list(TESTS))
    assert whole == ["full", "same"]
    assert set(compared) == set(TESTS)
    assert plain["rows"]["same"]["runs"] == [{"steps": 5}]
    assert plain["rows"]["same"]["seeds"]["drift ↓"] == [1.5]
    json.dumps(plain)


def test_every_column_is_measured_by_its_test() -> None:
    for column in COLUMNS:
        assert column.pairing == "own" or TESTS[column.test].shuffled, column


# --- the plugin ----------------------------------------------------------------------------------------------------


def flat_frame(side: int = 48) -> Any:
    mask = np.zeros((side, side), np.float32)
    mask[16:32, 16:32] = 1.0
    return SimpleNamespace(mask_canvas=mask, canvas=SimpleNamespace(window=(0, 0, side, side)))


def test_the_key_itself_has_no_difference_and_no_spread() -> None:
    key = np.full((48, 48, 3), 0.5, np.float32)
    assert measured([key, key], key, flat_frame()) == (0.0, 0.0, 0.0)


def test_what_is_wrong_in_the_character_counts_for_the_character_alone() -> None:
    key = np.full((48, 48, 3), 0.5, np.float32)
    made = key.copy()
    made[16:32, 16:32] = 0.9
    difference, spread, character = measured([made, key], key, flat_frame())
    assert difference == 0.0 and spread == 0.0 and character > 5.0


def test_the_spread_is_in_levels() -> None:
    key = np.full((48, 48, 3), 0.5, np.float32)
    apart = [key + 2 / 255, key - 2 / 255]   # a deviation of two levels
    assert measured(apart, key, flat_frame())[1] == pytest.approx(2.0, abs=1e-3)


# --- curves --------------------------------------------------------------------------------------------------------


def test_the_hours_of_a_curve_are_those_of_all_its_steps() -> None:
    curve = curve_of("tagger", [
        {"step": 100, "seconds_per_step": 9.0, "loss": 3.0},
        {"step": 300, "seconds_per_step": 4.5, "loss": 1.0, "check_loss": 2.0},
    ])
    assert curve.hours == pytest.approx((100 * 9.0 + 200 * 4.5) / 3600)
    assert curve.steps == 300 and curve.checked == [(300, 2.0)]


def test_the_picture_of_a_curve_reaches_from_the_largest_loss_to_the_least() -> None:
    curve = curve_of("tagger", [{"step": s, "seconds_per_step": 1.0, "loss": v} for s, v in ((1, 4.0), (10, 2.0))])
    lines = ET.fromstring(picture([curve])).findall(".//{http://www.w3.org/2000/svg}polyline")
    points = [tuple(map(float, point.split(","))) for point in lines[0].attrib["points"].split()]
    assert points[0][1] == 0.0 and points[-1] == (200.0, 120.0)


# --- the page ------------------------------------------------------------------------------------------------------


def test_the_table_of_stages_in_the_documentation_is_the_one_in_the_code() -> None:
    page = (Path(__file__).parent.parent / "docs" / "training.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    told = {cells[0].strip("`"): cells[1:] for cells in rows if cells[0].strip("`") in STAGES}
    assert list(told) == list(STAGES)
    for name, (models, trains, _, data) in told.items():
        stage = STAGES[name]
        assert models == ", ".join(stage.models), name
        assert trains == ", ".join(f"`{path}`" for path in stage.trains), name
        assert data.split(" ")[0] == stage.data, name
