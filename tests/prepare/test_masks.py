"""The character is found where a person would say it is."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from colorcli.images import over_paper, read_picture
from colorcli.prepare.lineart import LineArt, lines_of_color, read_lines
from colorcli.prepare.masks import (
    alpha_mask,
    bounding_box,
    character_mask,
    dilate,
    expand_grid,
    mask_from_flat,
    mask_from_lines,
    merge_masks,
)
from colorcli.presets import LineSettings, MaskSettings
from tests.prepare.drawn import figure, overlap, picture

BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "data"
DATA = Path(os.environ.get("COLORCLI_DATA") or BESIDE)


@pytest.mark.parametrize("size", [(640, 480), (321, 243), (1280, 720), (2560, 1440)])
def test_closed_line_art_shows_its_figure(size: tuple[int, int]) -> None:
    drawn = figure(*size)
    assert overlap(mask_from_lines(drawn.ink), drawn.mask) > 0.98


@pytest.mark.parametrize("gap_px", [2, 6, 12])
def test_gaps_in_the_outline_are_closed(gap_px: int) -> None:
    drawn = figure(gap_px=gap_px)
    assert overlap(mask_from_lines(drawn.ink), drawn.mask) > 0.96


def test_thin_faint_lines_hold_the_paper_back() -> None:
    drawn = figure(line_px=1)
    assert overlap(mask_from_lines(0.3 * drawn.ink), drawn.mask) > 0.97


def test_a_figure_cut_off_by_the_frame_is_whole_up_to_the_edge() -> None:
    drawn = figure()
    ink, mask = drawn.ink[:200], drawn.mask[:200]
    assert overlap(mask_from_lines(ink), mask) > 0.97


def test_the_space_between_the_legs_is_outside() -> None:
    drawn = figure()
    assert mask_from_lines(drawn.ink)[400:430, 318:322].max() == 0


def test_an_empty_page_has_no_figure_and_hatching_does_not_fail() -> None:
    assert mask_from_lines(np.zeros((90, 70), np.float32)).max() == 0
    strokes = np.zeros((90, 70), np.float32)
    strokes[10:80:9, 10:60] = 1
    assert mask_from_lines(strokes).shape == (90, 70)
    assert mask_from_lines(np.ones((90, 70), np.float32)).min() == 1


@pytest.mark.parametrize("paper", [(1, 1, 1), (0.6, 0.75, 0.9), (0.1, 0.1, 0.12), (0, 1, 0)])
def test_a_flat_key_shows_its_figure_on_any_paper(paper: tuple[float, float, float]) -> None:
    drawn = figure(paper=paper)
    key = picture(drawn.color)
    mask = mask_from_flat(key.color, lines_of_color(key, LineSettings()).ink)
    assert overlap(mask, drawn.mask) > 0.97


def test_a_white_shirt_on_white_paper_stays_inside_its_outline() -> None:
    drawn = figure()
    shirt = np.abs(drawn.color - np.float32([0.25, 0.45, 0.8])).max(-1) < 0.01
    color = np.where(shirt[:, :, None], np.float32(1), drawn.color)
    mask = mask_from_flat(color, lines_of_color(picture(color), LineSettings()).ink)
    assert overlap(mask, drawn.mask) > 0.97


def test_a_noisy_key_is_no_harder() -> None:
    drawn = figure()
    noise = np.random.default_rng(0).normal(0, 0.008, drawn.color.shape)
    color = np.clip(drawn.color + noise, 0, 1).astype(np.float32)
    assert overlap(mask_from_flat(color, lines_of_color(picture(color), LineSettings()).ink), drawn.mask) > 0.97


def test_a_figure_before_a_painted_background_is_cut_out() -> None:
    drawn = figure()
    rows, columns = np.mgrid[0:480, 0:640].astype(np.float32)
    hills = np.stack([0.2 + rows / 4000, 0.7 - rows / 1200, 0.2 + 0.1 * np.sin(columns / 90)], axis=-1)
    color = np.where(drawn.mask[:, :, None] > 0, drawn.color, hills).astype(np.float32)
    source = picture(color)
    one, two = (mask_from_flat(color, lines_of_color(source, LineSettings()).ink) for _ in range(2))
    assert overlap(one, drawn.mask) > 0.85
    np.testing.assert_array_equal(one, two)


def test_alpha_that_says_nothing_is_not_taken_for_a_mask() -> None:
    drawn = figure()
    full = np.ones_like(drawn.mask)
    assert alpha_mask(picture(drawn.color)) is None
    assert alpha_mask(picture(drawn.color, full)) is None
    assert alpha_mask(picture(drawn.color, drawn.ink)) is None
    found = alpha_mask(picture(drawn.color, drawn.mask))
    assert found is not None and found is not full


def test_given_masks_come_before_alpha_and_alpha_before_the_paper() -> None:
    drawn = figure()
    lines, source = LineArt(drawn.ink), picture(1 - drawn.ink, np.maximum(drawn.mask, 0))
    left, right = np.zeros_like(drawn.mask), np.zeros_like(drawn.mask)
    left[:, :100], right[:, 500:] = 1, 0.5
    np.testing.assert_array_equal(character_mask(source, lines, MaskSettings(), [left, right]), left + right)
    np.testing.assert_array_equal(character_mask(source, lines, MaskSettings(merge="first"), [left, right]), left)
    np.testing.assert_array_equal(character_mask(source, lines, MaskSettings(), []), drawn.mask)
    np.testing.assert_array_equal(character_mask(source, lines, MaskSettings(source="alpha"), [left]), drawn.mask)
    assert character_mask(source, lines, MaskSettings(source="none")).min() == 1
    assert overlap(character_mask(source, lines, MaskSettings(source="paper")), drawn.mask) > 0.98


def test_a_mask_is_grown_by_its_radius() -> None:
    mask = np.zeros((50, 50), np.float32)
    mask[25, 25] = 1
    grown = character_mask(picture(np.ones((50, 50))), LineArt(mask), MaskSettings(grow_px=3), [mask])
    assert grown.sum() == 7 * 7 and grown[22:29, 22:29].all()


def test_grid_expansion_fills_whole_cells_and_keeps_the_rest() -> None:
    mask = np.zeros((1, 7, 9), np.float32)
    mask[0, 1, 1], mask[0, 6, 8] = 0.7, 0.4
    grown = expand_grid(mask, (3, 4))
    assert (grown[0, :3, :4] == np.float32(0.7)).all() and grown[0, 6, 8] == np.float32(0.4)
    assert grown.sum() == pytest.approx(0.7 * 12 + 0.4)


def test_merging_takes_the_larger_value() -> None:
    one, other = np.float32([[0, 0.6, 1]]), np.float32([[0.2, 0.5, 0]])
    np.testing.assert_array_equal(merge_masks([one, other], "union"), np.float32([[0.2, 0.6, 1]]))
    np.testing.assert_array_equal(bounding_box(np.float32([[0, 0.2, 0]])), np.float32([[0, 0.2, 0]]))
    assert dilate(np.float32([[0, 0, 1, 0, 0]]), 3).sum() == 3


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real shots in {DATA} (set COLORCLI_DATA)")
@pytest.mark.parametrize(("kind", "good"), [("line", 0.96), ("color", 0.985)])
def test_real_frames_show_their_figure_without_their_alpha(kind: str, good: float) -> None:
    overlaps = []
    for shot in sorted(path for path in DATA.iterdir() if (path / kind).is_dir()):
        for path in sorted((shot / kind).glob("*.png"))[::8]:
            source = read_picture(path)
            assert source.alpha is not None
            flat = picture(over_paper(source))
            if kind == "line":
                mask = mask_from_lines(read_lines(flat, LineSettings()).ink)
            else:
                mask = mask_from_flat(flat.color, lines_of_color(flat, LineSettings()).ink)
            overlaps.append(overlap(mask, source.alpha))
    assert np.mean(overlaps) > good, overlaps


def test_a_gap_in_an_outline_leaves_no_bite_in_the_character():
    ink = np.zeros((300, 300), np.float32)
    cv2.rectangle(ink, (60, 40), (240, 260), 1.0, 2)
    ink[140:160, 236:244] = 0  # a gap in the right side
    mask = mask_from_lines(ink)
    assert mask[145:155, 150:236].min() > 0.5
    assert mask[145:155, 246:].max() < 0.5
