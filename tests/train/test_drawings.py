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
