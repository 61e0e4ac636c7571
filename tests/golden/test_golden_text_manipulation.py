"""Edits of picture tokens by words give the golden numbers."""

from typing import Any

import pytest

from colorcli.model.text_manipulation import (
    TextEdit,
    edit_tokens,
    heat,
    normalised,
    position_weight,
)
from tests.golden.fixture import Fixture, count, load


def edits(fixture: Fixture, case: dict[str, Any]) -> list[TextEdit]:
    """Read the edits of a case."""
    def vector(word: str) -> Any:
        return None if word == "none" else fixture.inputs[f"stub.text.{word}"]

    several = len(case["targets"])
    controls = case.get("controls", ["none"] * several)
    thresholds = case.get("thresholds_list", [(0.5, 0.55, 0.65, 0.95)] * several)
    return [
        TextEdit(vector(target), scale, vector(anchor), vector(control), enhance, tuple(limits))
        for target, scale, anchor, control, enhance, limits in zip(
            case["targets"], case["target_scales"], case["anchors"], controls, case["enhances"], thresholds, strict=True
        )
    ]


@pytest.mark.parametrize("i", range(count("text_manipulation", "local_cases")))
def test_golden_edits_of_places(i):
    fixture = load("text_manipulation")
    found = edit_tokens(fixture.inputs["tokens"], edits(fixture, fixture.config["local_cases"][i]))
    fixture.check(f"local.case{i}", found)


def test_golden_weight_of_a_place_and_its_heat():
    fixture = load("text_manipulation")
    given = fixture.inputs
    relevance = normalised(given["relevance"])
    fixture.check("position_weight", position_weight(relevance, given["delta"]))
    fixture.check("heat.0.6", heat(relevance, 0.6))
    # The numbers of the reference run do not tell these thresholds: its values have their kinks there.
    others = position_weight(relevance, given["delta"], (0.2, 0.4, 0.6, 0.8), away=1.0)
    fixture.check("position_weight.ratio1", others)
