"""Generated drawings agree with what they say of themselves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from colorcli.train.drawings import (
    BACKGROUNDS,
    FAMILIES,
    FRAMINGS,
    PARTS,
    TAGS,
    VALIDATION_FAMILIES,
    VIEWS,
    design_character,
    draw,
)
from colorcli.train.drawings.pose import Stride, choose_pose, strode

SMALL = (128, 160)


def test_the_same_seeds_give_the_same_picture():
    first, second = (draw(design_character(7), 3, SMALL) for _ in range(2))
    for name in ("color", "flat", "line", "mask", "parts", "regions", "tags"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


def test_another_pose_seed_gives_another_picture_of_the_same_character():
    character = design_character(7)
    first, second = (draw(character, pose, SMALL, background="plain") for pose in (1, 2))
    assert not np.array_equal(first.line, second.line)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("framing", FRAMINGS)
def test_all_pictures_of_a_drawing_have_the_size_asked_for(view, framing):
    drawing = draw(design_character(11), 0, (97, 130), view=view, framing=framing)
    assert drawing.color.shape == drawing.flat.shape == (130, 97, 3)
    assert {a.shape for a in (drawing.line, drawing.mask, drawing.parts, drawing.regions)} == {(130, 97)}
    assert drawing.tags.shape == (len(TAGS),)


def test_the_mask_is_where_there_is_a_part_and_nowhere_else():
    for seed in range(12):
        drawing = draw(design_character(seed), seed, SMALL)
        assert np.array_equal(drawing.mask > 0, drawing.parts > 0)
        assert np.array_equal(drawing.mask > 0, drawing.regions > 0)
        assert drawing.mask.any()
        assert set(np.unique(drawing.mask)) <= {0, 255}


def test_every_region_is_one_part():
    for seed in range(8):
        drawing = draw(design_character(seed), seed, SMALL)
        for region in np.unique(drawing.regions):
            if region:
                parts = np.unique(drawing.parts[drawing.regions == region])
                assert len(parts) == 1, (seed, region, [PARTS[p] for p in parts])


def test_line_art_has_paper_where_nothing_is_drawn_and_dark_lines_where_something_is():
    for seed in range(8):
        drawing = draw(design_character(seed), seed, SMALL, background="plain")
        assert drawing.line.min() < 128
        far_away = cv2.dilate(drawing.mask, np.ones((9, 9), np.uint8)) == 0
        assert (drawing.line[far_away] == 255).all()


def test_away_from_lines_the_colored_drawing_is_the_flat_one():
    drawing = draw(design_character(5), 5, SMALL, background="plain")
    same = (drawing.color == drawing.flat).all(2)
    assert same[drawing.mask == 0].mean() > 0.97
    assert same.mean() > 0.6


def test_a_region_has_one_color_or_two_if_shaded():
    """Counted away from its edge, where neighboring colors are averaged."""
    for seed in range(10):
        character = design_character(seed)
        drawing = draw(character, seed, SMALL, background="plain")
        edge = np.zeros(drawing.regions.shape, bool)
        for axis in (0, 1):
            for step in (1, -1):
                edge |= np.roll(drawing.regions, step, axis) != drawing.regions
        for region in np.unique(drawing.regions):
            inside = (drawing.regions == region) & ~edge
            if region and inside.sum() > 120:
                colors, counts = np.unique(drawing.flat[inside], axis=0, return_counts=True)
                settled = counts[np.argsort(counts)[::-1]][: 1 if character.shading is None else 2]
                assert settled.sum() > 0.6 * counts.sum(), (seed, region, colors[:5], counts)


def test_a_character_keeps_its_colors_from_pose_to_pose():
    kept = 0
    for seed in range(6):
        character = design_character(seed)
        palettes = []
        for pose in range(2):
            drawing = draw(character, pose, SMALL, view="front", background="plain", framing="full")
            colors, counts = np.unique(drawing.flat[drawing.mask > 0], axis=0, return_counts=True)
            palettes.append({tuple(c) for c in colors[np.argsort(counts)[::-1][:4]]})
        kept += len(palettes[0] & palettes[1]) >= 2
    assert kept >= 5


def test_every_part_is_drawn_sooner_or_later():
    seen: set[int] = set()
    for seed in range(300):
        size = (96, 128)
        seen |= set(np.unique(draw(design_character(seed), seed, size, background="plain").parts).tolist())
        if len(seen) == len(PARTS):
            break
    assert [PARTS[k] for k in range(len(PARTS)) if k not in seen] == []


def test_families_kept_for_measuring_are_never_drawn_for_training():
    assert not set(FAMILIES) & set(VALIDATION_FAMILIES)
    assert {design_character(seed).family for seed in range(60)} <= set(FAMILIES)


@pytest.mark.parametrize("family", [*FAMILIES, *VALIDATION_FAMILIES])
def test_every_family_can_be_drawn_from_every_side(family):
    for seed, view in enumerate(VIEWS):
        drawing = draw(design_character(seed, family), seed, SMALL, view=view, framing="full", background="plain")
        assert 0.02 < (drawing.mask > 0).mean() < 0.9


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_background_is_behind_the_character_only(background):
    character = design_character(3)
    plain = draw(character, 1, SMALL, background="plain")
    other = draw(character, 1, SMALL, background=background)
    assert np.array_equal(plain.parts, other.parts)
    if background != "plain":
        assert (other.color[other.mask == 0] != 255).any()


def test_a_head_is_in_every_picture_framed_to_it():
    heads = [PARTS.index(name) for name in ("face", "hair", "hat", "armor")]
    for seed in range(40):
        drawing = draw(design_character(seed), seed, SMALL, framing="bust", background="plain")
        assert np.isin(drawing.parts, heads).mean() > 0.04, seed


# --- what is drawn, and how often -------------------------------------------------------------------------------


def test_a_shape_without_shadow_is_exactly_one_color():
    """Of drawings with hard lines no pixel is averaged, so every pixel of a shape away from lines has its color."""
    counted = 0
    for seed in range(400):
        character = design_character(seed)
        if character.shading is None and character.pen.hard and character.companion is None:
            drawing = draw(character, seed, SMALL, background="plain")
            for region in np.unique(drawing.regions[drawing.regions > 0]):
                inside = cv2.erode((drawing.regions == region).astype(np.uint8), np.ones((3, 3))) > 0
                colors = np.unique(drawing.flat[inside], axis=0)
                counted += len(colors) > 0
                assert len(colors) <= 1, (seed, region, colors)
        if counted > 150:
            break
    assert counted > 150


def test_in_a_shot_limbs_swing_while_the_camera_stands_still():
    swings, jumps = [], []
    for seed in range(8):
        character = design_character(seed, "adult")
        frames = [draw(character, 5, SMALL, "side", "plain", "full", sway=k) for k in range(4)]
        half = SMALL[1] * 2 // 3
        low = [frame.mask[half:] > 0 for frame in frames]
        swings.append(max(1 - (low[0] & k).sum() / max((low[0] | k).sum(), 1) for k in low[1:]))
        tops = [np.flatnonzero(frame.mask.any(1))[0] for frame in frames]
        jumps.append(np.ptp(tops) / SMALL[1])
    assert np.median(swings) > 0.25
    assert np.median(jumps) < 0.06


def test_a_walking_shot_comes_back_to_its_first_pose_after_one_cycle():
    stride = Stride(phase=0.2, pace=0.25, thigh=0.5, knee=0.8, arm=0.5, elbow=0.3, lean=0.0)
    pose = choose_pose(np.random.default_rng(1), 1.57)
    first, half, whole = (strode(pose, stride, frame) for frame in (0, 2, 4))
    assert np.allclose(first.thighs + first.shins + first.forearms, whole.thighs + whole.shins + whole.forearms)
    forward = [[bone[2] for bone in pose.thighs] for pose in (first, half)]
    assert np.allclose(forward[0], forward[1][::-1])  # after half a cycle the legs have changed places


def test_designs_cover_what_productions_draw():
    cast = [design_character(seed) for seed in range(600)]

    def share(has):
        return np.mean([bool(has(character)) for character in cast])

    assert 0.4 < share(lambda c: c.shading is not None) < 0.6
    assert share(lambda c: c.shading is not None and c.shading.panel > 0) > 0.2
    assert share(lambda c: c.shading is not None and c.shading.far) > 0.1
    assert share(lambda c: c.pen.width < 1.1) > 0.3 and share(lambda c: c.pen.width > 2) > 0.12
    assert share(lambda c: c.pen.gaps or c.pen.missing or c.pen.pale) > 0.5
    assert share(lambda c: c.pen.shadow_edge) > 0.05 and share(lambda c: c.pen.hard) > 0.06
    assert share(lambda c: c.cut_out) > 0.08 and share(lambda c: c.open_jaw) > 0.2
    assert share(lambda c: c.companion is not None) > 0.03
    assert share(lambda c: len(c.trimmings) >= 3) > 0.3
    grays = [np.ptp([rgb for name, rgb in c.palette if name in ("jacket", "trousers", "top")], axis=1) for c in cast]
    assert np.mean([spread.max() < 30 for spread in grays]) > 0.1


def test_three_drawings_of_ten_are_seen_from_a_side():
    side = TAGS.index("side view")
    seen = [draw(design_character(seed), seed, (32, 40), background="plain").tags[side] for seed in range(150)]
    assert 0.2 < np.mean(seen) < 0.42
