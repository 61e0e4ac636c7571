"""What surrounds the segmentation networks reproduces the golden numbers; the network is the fixture's placeholder."""

from torch import Tensor

from colorcli.model import segmentation
from tests.golden.fixture import load


def test_golden_masks_around_a_placeholder_network() -> None:
    fixture = load("mask_extraction_wrapping")
    picture, size = fixture.inputs["picture"], fixture.config["network_size"]
    gain = fixture.config["placeholder_gain"]

    def logits(image: Tensor) -> Tensor:
        return gain * image.mean(1, keepdim=True)

    def sketch_network(image: Tensor) -> Tensor:
        return logits(image).sigmoid()

    def reference_network(image: Tensor) -> list[Tensor]:
        return [logits(image)]

    for number, case in enumerate(fixture.config["cases"]):
        if case["kind"] == "reference_network":
            mask = segmentation.reference_mask(reference_network, picture, size, dilate=case["dilate"])
        elif case["crop"]:
            mask = segmentation.letterboxed_sketch_mask(sketch_network, picture, size, dilate=case["dilate"])
        else:
            mask = segmentation.sketch_mask(sketch_network, picture, size, tuple(case["target_hw"]))
        fixture.check(f"mask.case{number}", mask)
