from itertools import product

import numpy as np
import pytest
import torch

from colorcli.train.turn import Turn


def test_no_two_turns_of_a_stage_have_the_same_number():
    turns = [Turn(1, "sketch", *place, micros=3, processes=4) for place in product(range(5), range(3), range(4))]
    assert sorted(turn.number for turn in turns) == list(range(60))


def test_a_turn_draws_the_same_whenever_it_is_asked():
    first, later = Turn(3, "sketch", 70), Turn(3, "sketch", 70)
    Turn(3, "sketch", 69).rng.random(1000)
    assert np.array_equal(first.rng.random(8), later.rng.random(8))
    assert torch.equal(torch.rand(8, generator=first.generator), torch.rand(8, generator=later.generator))


@pytest.mark.parametrize(
    "other",
    [Turn(2, "sketch", 7), Turn(1, "tagger", 7), Turn(1, "sketch", 8), Turn(1, "sketch", 7, micro=1, micros=2)],
    ids=["another seed", "another stage", "another step", "another micro-batch"],
)
def test_another_turn_draws_something_else(other):
    one = Turn(1, "sketch", 7)
    assert not np.array_equal(one.rng.random(8), other.rng.random(8))
    assert not torch.equal(torch.rand(8, generator=one.generator), torch.rand(8, generator=other.generator))


def test_two_processes_draw_what_one_with_twice_the_micro_batches_draws():
    alone = [Turn(1, "sketch", 5, micro, micros=2).rng.random() for micro in range(2)]
    together = [Turn(1, "sketch", 5, process=process, processes=2).rng.random() for process in range(2)]
    assert alone == together


def test_the_data_say_nothing_of_the_noise():
    # 2000 pairs of independent draws correlate by about 1 / sqrt(2000) = 0.022.
    turns = [Turn(1, "sketch", step) for step in range(2000)]
    data = [turn.rng.random() for turn in turns]
    noise = [float(torch.rand((), generator=turn.generator)) for turn in turns]
    assert abs(np.corrcoef(data, noise)[0, 1]) < 0.1
