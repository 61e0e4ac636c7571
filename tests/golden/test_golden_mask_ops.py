"""The mask utilities reproduce the golden numbers."""

from typing import Any

import numpy as np

from colorcli.prepare.masks import bounding_box, dilate, expand_grid, threshold
from tests.golden.fixture import load


def arrays() -> tuple[Any, dict[str, np.ndarray]]:
    fixture = load("mask_ops")
    return fixture, {name: value.numpy() for name, value in fixture.inputs.items()}


def test_golden_grid_expansion() -> None:
    fixture, inputs = arrays()
    for rows, columns in fixture.config["grids"]:
        for name in ("mask", "sparse"):
            fixture.check(f"expand.{rows}x{columns}.{name}", expand_grid(inputs[name], (rows, columns)))


def test_golden_bounding_box() -> None:
    fixture, inputs = arrays()
    fixture.check("bbox.mask0", bounding_box(inputs["mask"][0]))
    fixture.check("bbox.sparse", bounding_box(inputs["sparse"]))
    fixture.check("bbox.empty", bounding_box(inputs["sparse"] * np.float32(0.5)))


def test_golden_threshold() -> None:
    fixture, inputs = arrays()
    for level in fixture.config["thresholds"]:
        fixture.check(f"threshold.{level}", threshold(inputs["mask"], level))
    fixture.check("threshold.per_sample", threshold(inputs["mask"], inputs["threshold_per_sample"]))


def test_golden_dilation() -> None:
    fixture, inputs = arrays()
    for name in fixture.outputs:
        if name.startswith("dilate"):
            operation, source = name.split(".")
            fixture.check(name, dilate(inputs[source], int(operation.removeprefix("dilate"))))
