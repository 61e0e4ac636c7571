"""Colored separation lines: which strokes are such lines, at every weight and crossing."""

import cv2
import numpy as np
import pytest

from colorcli.finish.finish import finish_frame
from colorcli.finish.separation import separation_lines
from colorcli.images import FORMATS, Picture
from colorcli.prepare.lineart import read_lines
from colorcli.presets import FinishSettings, LineSettings, Preset
from tests.finish.studio import face, flats, key_of, painted, picture, prepared

WHITE = np.ones(3, np.float32)


def drawing(*strokes: tuple[tuple[int, int, int], int]) -> np.ndarray:
    """Vertical strokes of a color and a width, 20 pixels apart, antialiased; (64, 20 * count + 20, 3) in 0..1."""
    picture = np.full((64, 20 * len(strokes) + 20, 3), 255, np.uint8)
    for number, (color, width) in enumerate(strokes, start=1):
        cv2.line(picture, (20 * number, 4), (20 * number + 3, 60), color, width, cv2.LINE_AA)
    return picture.astype(np.float32) / np.float32(255)


def found(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ink of a drawing, and its separation lines."""
    ink = read_lines(Picture(picture, None, FORMATS["png8"], 3), LineSettings(min_stroke_px=0)).ink
    return ink, separation_lines(picture, ink, WHITE)


@pytest.mark.parametrize("color", [(255, 0, 0), (0, 0, 255), (0, 160, 0), (230, 60, 60), (90, 90, 255), (255, 120, 0)])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_stroke_of_a_clear_color_is_a_separation_line_with_all_its_soft_edge(
    color: tuple[int, int, int], width: int
) -> None:
    ink, separations = found(drawing((color, width)))
    assert (ink > 0).any() and separations[ink > 0].all() and not separations[ink == 0].any()


@pytest.mark.parametrize("color", [(0, 0, 0), (90, 90, 90), (60, 40, 30), (40, 45, 60), (170, 170, 170)])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_black_gray_and_brown_ink_is_none(color: tuple[int, int, int], width: int) -> None:
    assert not found(drawing((color, width)))[1].any()


def test_beside_each_other_each_stroke_is_what_it_is() -> None:
    _, separations = found(drawing(((0, 0, 0), 2), ((255, 0, 0), 2), ((0, 0, 0), 1), ((0, 0, 255), 1)))
    columns = np.flatnonzero(separations.any(axis=0)) // 10   # strokes stand at 20, 40, 60 and 80
    assert set(columns) <= {3, 4, 7, 8} and {4, 8} <= set(columns)


def test_where_a_colored_stroke_crosses_a_black_one_the_black_stays() -> None:
    picture = np.full((64, 64, 3), 255, np.uint8)
    cv2.line(picture, (4, 32), (60, 32), (255, 0, 0), 2, cv2.LINE_AA)
    cv2.line(picture, (32, 4), (32, 60), (0, 0, 0), 3, cv2.LINE_AA)
    _, separations = found(picture.astype(np.float32) / np.float32(255))
    assert not separations[4:61, 32].any()
    assert separations[32, 8:26].all() and separations[32, 40:58].all()


def test_paper_that_is_not_white_gives_no_stroke_a_color() -> None:
    yellow = np.float32([1.0, 0.95, 0.8])
    picture = drawing(((0, 0, 0), 2)) * yellow
    ink, _ = found(picture)
    assert not separation_lines(picture, ink, yellow).any()


def separated_face() -> tuple[np.ndarray, np.ndarray]:
    """A head with a black outline, parted in four by red lines, and its mask off the outline, (H, W)."""
    drawn, _, alpha = face(stroke=(0.9, 0.05, 0.05), width=4)
    ring = np.zeros(alpha.shape, np.uint8)
    cv2.circle(ring, (150, 120), 100, 255, 4, cv2.LINE_AA)
    inside = np.zeros(alpha.shape, np.uint8)
    cv2.circle(inside, (150, 120), 94, 1, -1)
    return drawn * (1 - ring[..., None].astype(np.float32) / 255), inside > 0


def test_a_removed_separation_line_parts_two_colors_and_leaves_nothing_of_its_own() -> None:
    drawn, inside = separated_face()
    preset = Preset(finish=FinishSettings(separation_lines="remove"))
    frame = prepared(picture(drawn), preset)
    _, truth, alpha = face()
    color, _ = finish_frame(painted(frame, flats()), frame, key_of(truth, alpha, preset), preset)
    darkest, lightest = cv2.erode(flats(), np.ones((7, 7))), cv2.dilate(flats(), np.ones((7, 7)))
    off = np.maximum(darkest - color, color - lightest).max(axis=2)
    assert off[inside].max() < 0.02   # nothing but the two colors on both sides, and their mixtures
    even = inside & ((lightest - darkest).max(axis=2) == 0)
    assert np.abs(color - flats())[even].max() < 0.02
    outline = drawn.max(axis=2) < 0.05
    assert outline.sum() > 500 and np.abs(color - drawn)[outline].max() < 0.01


def test_separation_lines_are_kept_where_nothing_else_is_asked_for() -> None:
    drawn, inside = separated_face()
    frame = prepared(picture(drawn), Preset())
    _, truth, alpha = face()
    color, _ = finish_frame(painted(frame, flats()), frame, key_of(truth, alpha, Preset()), Preset())
    red = inside & (np.abs(drawn - np.float32([0.9, 0.05, 0.05])).max(axis=2) < 0.01)
    assert red.sum() > 300 and np.abs(color - drawn)[red].max() < 0.01
