"""Calls take turns, a ratio is that of its rounds, and a difference is what was put in."""

import numpy as np
import pytest

from benchmarks.machine import compare, equivalence, interleaved, ratio


def test_calls_take_turns_and_every_other_round_goes_backwards():
    order: list[str] = []
    result = interleaved({name: lambda name=name: order.append(name) for name in "abc"}, rounds=3, warm_up=1)
    assert "".join(order) == "cba" + "abc" + "cba" + "abc"
    assert result["baseline"] == "a" and set(result["ratios"]) == {"b", "c"}
    assert set(result["seconds"]["b"]) == {"median", "shortest", "longest"}


def test_a_busy_moment_that_hits_both_leaves_the_ratio_alone():
    # Twice as fast in every round; in the third everything took ten times as long.
    assert ratio([2, 2, 20, 2], [1, 1, 10, 1]) == {"median": 2.0, "low": 2.0, "high": 2.0}


def test_the_interval_of_a_ratio_is_as_wide_as_its_rounds_disagree():
    steady, unsteady = ratio([3.0] * 9, [1.0, 1.01, 0.99] * 3), ratio([3.0] * 9, [1.0, 2.0, 0.5] * 3)
    assert steady["high"] - steady["low"] < 0.1 < 1 < unsteady["high"] - unsteady["low"]
    assert unsteady["low"] <= unsteady["median"] <= unsteady["high"]


def test_equal_pictures_are_equivalent_and_one_changed_pixel_is_found():
    black = np.zeros((10, 20, 3), np.float32)
    assert equivalence([black], [black])["psnr_db"] == 999
    changed = black.copy()
    changed[3, 4] = 1  # black to white is 100 in CIEDE2000
    one = equivalence([black], [changed])
    assert one["max_difference"] == 1 and one["pixels_that_differ"] == 1 / 200
    assert one["delta_e_max"] == pytest.approx(100, abs=0.01)
    assert one["psnr_db"] == pytest.approx(10 * np.log10(200), abs=0.01)


def test_the_99th_percentile_counts_pixels_that_are_equal():
    black, few, many = (np.zeros((10, 100, 3), np.uint8) for _ in range(3))
    few[0, :5] = 255    # 0.5 % of the pixels
    many[0, :15] = 255  # 1.5 %
    assert equivalence([black], [few])["delta_e_p99"] == 0
    assert equivalence([black], [many])["delta_e_p99"] == pytest.approx(100, abs=0.01)


def test_results_of_two_benchmarks_are_not_compared():
    one = {"schema": 1, "benchmark": "shot", "ratios": {"ours": 3.0}, "rounds": [1, 2]}
    assert compare(one, {**one, "ratios": {"ours": 4.0}})[1] == ("ratios.ours", 3.0, 4.0)
    with pytest.raises(ValueError, match="benchmark"):
        compare(one, {**one, "benchmark": "frames"})
