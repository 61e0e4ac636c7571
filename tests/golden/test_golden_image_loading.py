"""The published preparation of 8-bit pictures reproduces the golden numbers."""

import numpy as np

from colorcli.model import preprocess
from tests.golden import loading
from tests.golden.fixture import load


def test_golden_sketch_letterbox() -> None:
    fixture = load("image_loading")
    height, width = fixture.config["resolution_hw"]
    cases = {tuple(name.split(".")[:2]) for name in fixture.outputs if name.endswith(".sketch")}
    for system, mode in sorted(cases):
        sketch, box = loading.letterbox_sketch(
            fixture.inputs["picture"].numpy(), (height, width), mode=mode, system=system
        )
        fixture.check(f"{system}.{mode}.box_left_top_width_height", np.asarray(box))
        fixture.check(f"{system}.{mode}.sketch", sketch)
        fixture.check(f"{system}.{mode}.white_sketch", -sketch)


def test_golden_margin_and_validation_sizes() -> None:
    fixture = load("image_loading")
    picture, size = fixture.inputs["picture"].numpy(), fixture.config["validation_size"]
    fixture.check("margin", loading.white_margin(picture, fixture.config["pad_scale"]))
    fixture.check("validation_letterbox", preprocess.white_square(picture, size))
    fixture.check("validation_long_edge", preprocess.long_edge(picture, size))
    fixture.check("validation_square", preprocess.resize_8bit(picture, (size, size)))


def test_golden_value_ranges() -> None:
    fixture = load("image_loading")
    fixture.check("normalised", preprocess.normalize(fixture.inputs["picture"].numpy()))
    fixture.check("to_uint8", preprocess.to_8bit(fixture.inputs["network_output"]))
