"""Background bleaching reproduces the golden numbers."""

from colorcli.train.objectives.bleaching import Thresholds, bleach
from tests.golden.fixture import load


def test_golden_bleaching_of_a_training_batch() -> None:
    fixture = load("background_bleaching")
    x = fixture.inputs
    others = [name.removesuffix("image") for name in fixture.outputs if name[0] == "p" and name.endswith(".image")]
    chances = {prefix: float(prefix[1:-1]) for prefix in others}
    for prefix, chance in {"": fixture.config["p_white"], **chances}.items():
        found = bleach(
            x["image"],
            x["sketch"],
            x["reference"],
            sketch_mask=x["sketch_mask"],
            reference_mask=x["reference_mask"],
            thresholds=Thresholds(x["threshold_sketch"], x["threshold_reference"]),
            white=x["draw.white"] < chance,
            level=x["draw.level"],
        )
        for name in ("image", "sketch", "background_reference"):
            fixture.check(prefix + name, getattr(found, name))
