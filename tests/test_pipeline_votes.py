"""Votes on the real model: a ballot says no more and no less than what a frame alone would do."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from colorcli.images import read_picture
from colorcli.loading import load_pipeline
from colorcli.model.match import match_frame, paint
from colorcli.pipeline import ColorizePipeline
from colorcli.prepare.frame import prepare_frame
from colorcli.prepare.key import prepare_key
from colorcli.presets import Preset
from colorcli.variants import VARIANTS

SAMPLES = Path(__file__).parent.parent / "samples"
PRESET = Preset.model_validate({"steady": {"on": True}})
MINI = VARIANTS["mini"]


@pytest.fixture(scope="module")
def shot():
    """The model, two frames, and the key."""
    pipeline = load_pipeline("mini", "cpu")
    paths = sorted((SAMPLES / "walk").glob("*.png"))[:2]
    frames = [prepare_frame(read_picture(path), PRESET, MINI) for path in paths]
    key = prepare_key(read_picture(SAMPLES / "walk_key.png"), PRESET, MINI)
    return pipeline, frames, pipeline.encode_reference(key, PRESET)


def test_with_its_own_ballot_a_frame_comes_out_as_alone(shot):
    pipeline, frames, reference = shot
    ballots = [pipeline.ballot(frame, reference, PRESET) for frame in frames]
    alone = pipeline.color(frames, reference, PRESET)
    polled = pipeline.color(frames, reference, PRESET, [pipeline.decide([ballot], 0, {}) for ballot in ballots])
    assert all(np.array_equal(*layers) for layers in zip(alone, polled, strict=True))


def test_a_frame_is_colored_by_what_is_decided(shot):
    pipeline, (frame, *_), reference = shot
    ballot = pipeline.ballot(frame, reference, PRESET)
    scores = torch.full_like(ballot.scores, -20)
    scores[:, 0] = 0
    decided = replace(ballot, scores=scores)
    (layer,) = pipeline.color([frame], reference, PRESET, [decided])
    painted = paint(frame, reference.match, decided.chosen).color
    assert np.abs(layer - painted).mean() < np.abs(pipeline.match(frame, reference, PRESET) - painted).mean() / 4


def test_how_alike_a_region_is_to_the_key_is_told_by_the_rule_whatever_was_learned(shot):
    pipeline, (frame, *_), reference = shot
    assert pipeline.matcher is not None
    by_rule = match_frame(pipeline.read_parts(frame, reference, PRESET), frame, reference.match)
    ballot = pipeline.ballot(frame, reference, PRESET)
    assert not torch.equal(ballot.scores, by_rule.scores)
    assert torch.equal(ballot.nearest, by_rule.scores.amax(1))


def test_what_speaks_for_a_color_is_the_same_if_nobody_else_is_heard(shot):
    pipeline, (frame, *_), reference = shot
    ballot = pipeline.ballot(frame, reference, PRESET)
    alone, decided = (
        pipeline.evidence(frame, each, reference) for each in (ballot, pipeline.decide([ballot], 0, {}))
    )
    assert np.allclose(alone.shares, decided.shares, atol=1e-5)
    assert np.allclose(alone.shares.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(alone.likeness, decided.likeness)
    assert len(alone.likeness) == alone.labels.max() == frame.regions.count


def test_the_same_drawing_around_it_changes_nothing(shot):
    pipeline, frames, reference = shot
    ballot = pipeline.ballot(frames[0], reference, PRESET)
    (alone,) = pipeline.color(frames[:1], reference, PRESET)
    links = {places: pipeline.link(ballot, ballot) for places in ((0, 1), (0, 2), (1, 2))}
    (polled,) = pipeline.color(frames[:1], reference, PRESET, [pipeline.decide([ballot] * 3, 1, links)])
    assert np.array_equal(alone, polled)


def test_a_blank_frame_has_no_ballot_and_stays_white(shot):
    pipeline, frames, reference = shot
    picture = frames[0].picture
    blank = prepare_frame(type(picture)(np.ones_like(picture.color), None, picture.format, 3), PRESET, MINI)
    assert pipeline.ballot(blank, reference, PRESET) is None
    assert len(pipeline.evidence(blank, None, reference).shares) == 0
    other = pipeline.ballot(frames[0], reference, PRESET)
    assert pipeline.link(None, other) is None
    decided = pipeline.decide([None, other], 0, {(0, 1): None})
    (layer,) = pipeline.color([blank], reference, PRESET, [decided])
    assert layer.min() > 0.9


class Watched(ColorizePipeline):
    """Counts how many ballots are made at the same time."""

    inside = most = 0

    def read_parts(self, frame, reference, preset):
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.02)   # time for the others to come in
        found = super().read_parts(frame, reference, preset)
        self.inside -= 1
        return found


@pytest.mark.parametrize("side_by_side", [1, 3])
def test_ballots_are_made_at_the_same_time_only_where_frames_are_colored_so(shot, side_by_side):
    pipeline, frames, reference = shot
    watched = Watched(**pipeline.components)
    watched.side_by_side = side_by_side
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda frame: watched.ballot(frame, reference, PRESET), frames[:1] * 3))
    assert watched.most == side_by_side
