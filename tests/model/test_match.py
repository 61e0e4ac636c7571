import numpy as np
import torch

from colorcli.images import FORMATS, Picture
from colorcli.model.match import key_map, match_cells, paint_match, part_map
from colorcli.prepare.canvas import Canvas
from colorcli.prepare.frame import PreparedFrame
from colorcli.prepare.lineart import LineArt
from colorcli.prepare.palette import find_palette

RED, BLUE = (0.9, 0.1, 0.1), (0.1, 0.2, 0.9)
SIDE = 64  # of the canvas, 8 x 8 cells


def halves(first: int, second: int) -> torch.Tensor:
    """Probabilities of three parts: the upper half of the canvas is one, the lower another."""
    parts = torch.full((3, 8, 8), 0.01)
    parts[first, :4] = 0.98
    parts[second, 4:] = 0.98
    return parts


def key():
    """A key whose upper half is part 1 in red and whose lower half is part 2 in blue."""
    color = np.empty((SIDE, SIDE, 3), np.float32)
    color[:32], color[32:] = RED, BLUE
    ink, mask = np.zeros((SIDE, SIDE), np.float32), np.ones((SIDE, SIDE), np.float32)
    return key_map(part_map(halves(1, 2), mask), find_palette(color, ink, mask))


def paint(parts: torch.Tensor, ink: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    mask = np.ones((SIDE, SIDE), np.float32) if mask is None else mask
    whole = (0, 0, SIDE, SIDE)
    picture = Picture(1 - np.repeat(ink[..., None], 3, 2), None, FORMATS["png8"], 3)
    frame = PreparedFrame(picture, LineArt(ink), mask, Canvas((SIDE, SIDE), whole, (SIDE, SIDE), whole), ink, mask)
    reference = key()
    return paint_match(match_cells(part_map(parts, mask), reference), reference.palette, frame)


def line_across() -> np.ndarray:
    ink = np.zeros((SIDE, SIDE), np.float32)
    ink[31:33] = 1
    return ink


def test_each_part_gets_its_color_of_the_key():
    painted = paint(halves(1, 2), line_across())
    assert np.allclose(painted[:28], RED, atol=0.02) and np.allclose(painted[36:], BLUE, atol=0.02)


def test_a_part_that_has_moved_keeps_its_color():
    painted = paint(halves(2, 1), line_across())
    assert np.allclose(painted[:28], BLUE, atol=0.02) and np.allclose(painted[36:], RED, atol=0.02)


def test_a_closed_region_has_one_color():
    ink = np.zeros((SIDE, SIDE), np.float32)
    ink[40:42] = 1  # the upper region reaches over most of both parts
    painted = paint(halves(1, 2), ink)
    assert np.ptp(painted[:38], axis=(0, 1)).max() == 0


def test_there_is_color_under_the_lines_and_white_outside():
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[8:56, 8:56] = 1
    painted = paint(halves(1, 2), line_across(), mask)
    assert np.allclose(painted[:8], 1) and np.allclose(painted[:, :8], 1)
    assert painted[31:33, 10:54].min(-1).max() < 0.5
