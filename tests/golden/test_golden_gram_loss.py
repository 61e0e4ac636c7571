"""The Gram loss reproduces the golden numbers in every setting that has some."""

from typing import Any

import pytest
import torch

from colorcli.train.objectives.gram import gram_loss, gram_matrices
from colorcli.train.sections import GramSection
from tests.golden.fixture import Fixture, count, load

VARIANTS = {"mse_loss": "mse", "kl_loss": "kl", "ranking_loss": "ranking"}


def section_of(case: dict[str, Any]) -> GramSection:
    """Translate the published settings of a case."""
    loss, hooker = case["loss"], case["hooker"]
    return GramSection(
        weight=loss["weight"], variant=VARIANTS[loss["loss_fn"]], form="cosine" if hooker["apply_norm"] else "product",
        standardize=hooker["apply_dist_norm"], normalize_rows=loss.get("l2_norm", False),
        temperature=loss.get("kl_temp", 1.0), mask_weighting=loss.get("mask_weight", False),
        mask_threshold=case.get("mask_threshold", 0.05),
    )


@pytest.mark.parametrize("i", range(count("gram_loss", "cases")))
def test_golden_losses_and_matrices_of_every_setting(i: int) -> None:
    fixture: Fixture = load("gram_loss")
    case = fixture.config["cases"][i]
    section = section_of(case)
    layers = case.get("layers", fixture.config["layers"])
    passes = {name: fixture.input_family(f"{name}_pass")[:layers] for name in ("first", "second")}
    for name, features in passes.items():
        for layer, tokens in enumerate(features):
            output = f"gram.{name}.case{i}.layer{layer}"
            if output in fixture.outputs:
                cosine, standardize = section.form == "cosine", section.standardize
                fixture.check(output, gram_matrices(tokens, normalize=cosine, standardize=standardize))
    loss = section.weight * gram_loss(passes["first"], passes["second"], section, fixture.inputs["mask"])
    fixture.check(f"loss.case{i}", torch.atleast_1d(loss))
