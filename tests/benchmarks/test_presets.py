"""The benchmark of presets: what it compares, and how it counts."""

import numpy as np
import pytest
import torch

from benchmarks.presets import Counting, Found, Way, compared, table, ways
from colorcli.presets import load_preset

WAYS = ways()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_every_way_can_be_drawn_by_mini_and_its_baseline_comes_first(way):
    preset = load_preset(way.preset, way.overrides)
    assert preset.model == "mini"
    assert way.baseline in [other.name for other in WAYS[: WAYS.index(way) + 1]]


def test_the_large_models_presets_are_measured_with_their_own_steps_window_and_warm_start():
    way = next(way for way in WAYS if way.name == "xl-turbo")
    mine, its = load_preset(way.preset, way.overrides), load_preset("xl-turbo")
    assert mine.sampling.model_dump(exclude={"schedule"}) == its.sampling.model_dump(exclude={"schedule"})
    assert mine.warm_start == its.warm_start and mine.warm_start.on
    assert mine.reference.guidance_window == its.reference.guidance_window


def test_regions_count_alike_whichever_shot_they_are_in_and_pictures_are_compared_with_the_baselines():
    white, black = np.ones((4, 4, 3), np.float32), np.zeros((4, 4, 3), np.float32)

    def found(seconds, rows, made, regions):
        scores = [(n, {"accuracy": right, "area_accuracy": right, "flicker": 1.0}) for n, right in regions]
        return Found([seconds] * 2, rows, 4, made, scores)

    numbers = compared(
        {"slow": found(3.0, 40, [white], [(10, 1.0), (30, 0.6)]), "quick": found(1.0, 10, [black], [(40, 0.5)])},
        [Way("slow", "slow", ()), Way("quick", "slow", ())],
    )
    assert (numbers["slow"]["accuracy"], numbers["quick"]["accuracy"]) == (0.7, 0.5)
    assert numbers["quick"]["ratio"]["median"] == 3.0
    assert numbers["quick"]["network_rows_per_frame"] == 2.5
    assert numbers["quick"]["equivalence"]["max_difference"] == 1.0
    assert numbers["slow"]["equivalence"]["max_difference"] == 0.0
    assert "| quick | 1.00 | 3.00 | 2.5 | 1.00 | 100.0 | 0.500 |" in table(numbers)


def test_only_the_rows_of_frames_are_counted():
    class Pipeline:
        unet = torch.nn.Identity()

        def encode_reference(self, key, preset):
            return self.unet(torch.zeros(5, 1))

        def color(self, frames, reference, preset):
            return [self.unet(torch.zeros(2, 1)) for _ in frames]

    counting = Counting(Pipeline())
    counting.color(["one", "two"], counting.encode_reference("key", None), None)
    assert counting.rows == 4
