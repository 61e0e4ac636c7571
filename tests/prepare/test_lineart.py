"""Ink is what was drawn: not the paper, not the dust, not the color of the lines."""

import numpy as np
import pytest

from colorcli.images import Picture
from colorcli.prepare.lineart import (
    alpha_is_lines,
    is_light_on_dark,
    lines_of_color,
    read_lines,
    standard_line_art,
    without_dust,
)
from colorcli.presets import LineSettings
from tests.prepare.drawn import figure, overlap, picture

Float = np.ndarray


def ink_of(source: Picture, **settings: object) -> Float:
    return read_lines(source, LineSettings(**settings)).ink


def test_clean_lines_come_through_as_they_are() -> None:
    drawn = figure()
    np.testing.assert_allclose(ink_of(picture(1 - drawn.ink)), drawn.ink, atol=0.08)


def test_gray_lines_stay_gray() -> None:
    drawn = figure()
    ink = ink_of(picture(1 - 0.3 * drawn.ink))
    np.testing.assert_allclose(ink[drawn.ink == 1], 0.3, atol=0.01)
    assert ink[drawn.ink == 0].max() == 0


def test_light_lines_on_dark_are_found_to_be_lines() -> None:
    drawn = figure()
    np.testing.assert_allclose(ink_of(picture(drawn.ink)), drawn.ink, atol=0.08)
    blueprint = ink_of(picture(0.3 + 0.6 * drawn.ink))
    assert blueprint[drawn.ink == 1].min() > 0.5 and blueprint[drawn.ink == 0].max() < 0.05
    assert is_light_on_dark(drawn.ink) and not is_light_on_dark(1 - drawn.ink)


def test_the_polarity_can_be_forced() -> None:
    drawn = figure()
    assert ink_of(picture(drawn.ink), polarity="dark-on-light").mean() > 0.8


@pytest.mark.parametrize("line_color", [0.0, 1.0], ids=["black", "white"])
def test_lines_on_a_transparent_ground_are_found_whatever_their_color(line_color: float) -> None:
    drawn = figure()
    color = np.full((*drawn.ink.shape, 3), line_color, np.float32)
    np.testing.assert_allclose(ink_of(picture(color, drawn.ink)), drawn.ink, atol=1e-6)
    assert alpha_is_lines(drawn.ink) and not alpha_is_lines(drawn.mask)


def test_colored_lines_count_as_lines() -> None:
    drawn = figure()
    red = 1 - drawn.ink[:, :, None] * np.float32([0.1, 0.9, 0.9])
    assert ink_of(picture(red))[drawn.ink == 1].min() > 0.6


def test_a_scan_on_gray_uneven_paper_is_whitened() -> None:
    drawn = figure()
    rows, columns = np.mgrid[-1:1:480j, -1:1:640j]
    paper = 0.82 - 0.12 * columns - 0.06 * rows**2
    grain = np.random.default_rng(0).normal(0, 0.012, drawn.ink.shape)
    scan = np.clip(paper * (1 - 0.9 * drawn.ink) + grain, 0, 1).astype(np.float32)
    ink = ink_of(picture(scan))
    assert (ink[drawn.ink == 0] > 0.05).mean() < 0.01
    assert np.median(ink[drawn.ink == 1]) > 0.85
    assert overlap(ink, drawn.ink) > 0.9


def test_yellowed_paper_is_paper() -> None:
    drawn = figure()
    scan = (1 - drawn.ink)[:, :, None] * np.float32([0.96, 0.9, 0.74])
    ink = ink_of(picture(scan))
    assert ink[drawn.ink == 0].max() < 0.05 and ink[drawn.ink == 1].min() > 0.9


def test_solid_black_stays_solid() -> None:
    value = np.ones((300, 400), np.float32)
    value[60:200, 80:240] = 0
    ink = ink_of(picture(value))
    assert ink[60:200, 80:240].min() > 0.95 and ink[:55].max() == 0


def test_dust_goes_and_a_dot_that_was_drawn_stays() -> None:
    ink = np.zeros((100, 100), np.float32)
    ink[10, 10] = 1
    ink[20:22, 50] = 1
    ink[60:64, 60:64] = 1
    cleaned = without_dust(ink, 4)
    assert cleaned[:30].max() == 0 and (cleaned[60:64, 60:64] == 1).all()
    np.testing.assert_array_equal(without_dust(ink, 0), ink)


def test_much_dust_goes_as_well() -> None:
    drawn = figure()
    specks = np.random.default_rng(0).random(drawn.ink.shape) < 0.001
    value = np.where(specks, 0.3, 1 - drawn.ink).astype(np.float32)
    ink = ink_of(picture(value), min_stroke_px=6)
    assert (ink[drawn.mask == 0] > 0.1).mean() < 1e-4


def test_pencil_strokes_gain_weight_and_grain_goes() -> None:
    drawn = figure(line_px=4)
    draw = np.random.default_rng(0)
    stroke = drawn.ink * (0.35 + 0.1 * draw.random(drawn.ink.shape))
    page = np.clip(0.93 - stroke + draw.normal(0, 0.02, drawn.ink.shape), 0, 1).astype(np.float32)
    ink = ink_of(picture(page), mode="pencil")
    assert ink[drawn.ink == 1].mean() > 1.5 * ink_of(picture(page))[drawn.ink == 1].mean()
    assert (ink[drawn.ink == 0] > 0.3).mean() < 0.02


@pytest.mark.parametrize("extractor", ["xdog", "highpass"])
def test_lines_are_extracted_from_a_painting(extractor: str) -> None:
    drawn = figure()
    ink = ink_of(picture(drawn.color), mode="extract", extractor=extractor)
    assert ink[drawn.ink == 1].mean() > 0.5
    assert ink[drawn.mask == 0].mean() < 0.02


def test_the_outlines_of_a_key_look_like_its_line_art() -> None:
    drawn = figure()
    ink = lines_of_color(picture(drawn.color), LineSettings()).ink
    near = np.abs(ink - drawn.ink)
    assert near.sum() < 0.6 * drawn.ink.sum()
    assert ink[drawn.ink == 1].mean() > 0.7


def test_a_flat_dark_field_has_no_lines_inside() -> None:
    color = np.ones((200, 200, 3), np.float32)
    color[50:150, 50:150] = 0.15
    assert lines_of_color(picture(color), LineSettings()).ink[70:130, 70:130].max() == 0


def test_the_standard_line_art_of_blank_paper_is_empty() -> None:
    assert standard_line_art(np.full((40, 40, 3), 200, np.uint8)).max() == 0


def test_a_blank_frame_has_no_ink() -> None:
    assert ink_of(picture(np.ones((64, 64), np.float32))).max() == 0
    transparent = picture(np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32))
    assert ink_of(transparent).max() == 0
