import numpy as np
import torch

from colorcli.images import FORMATS, Picture
from colorcli.model.match import (
    KeyMap,
    PartMap,
    RegionReadings,
    join_key_maps,
    key_map,
    match_frame,
    paint_match,
    part_map,
    rule_scores,
)
from colorcli.prepare.canvas import Canvas
from colorcli.prepare.frame import PreparedFrame
from colorcli.prepare.key import PreparedKey
from colorcli.prepare.lineart import LineArt

RED, BLUE = (0.9, 0.1, 0.1), (0.1, 0.2, 0.9)
SIDE = 64  # of the canvas, 8 x 8 cells
WHOLE = Canvas((SIDE, SIDE), (0, 0, SIDE, SIDE), (SIDE, SIDE), (0, 0, SIDE, SIDE))


def halves(first: int, second: int) -> torch.Tensor:
    """Probabilities of three parts: the upper half of the canvas is one, the lower another."""
    parts = torch.full((3, 8, 8), 0.01)
    parts[first, :4] = 0.98
    parts[second, 4:] = 0.98
    return parts


def prepared_key(above: tuple[float, float, float] = RED, below: tuple[float, float, float] = BLUE) -> PreparedKey:
    """A key whose upper half is red and whose lower half is blue, or of other colors."""
    color = np.empty((SIDE, SIDE, 3), np.float32)
    color[:32], color[32:] = above, below
    ink, mask = np.zeros((SIDE, SIDE), np.float32), np.ones((SIDE, SIDE), np.float32)
    return PreparedKey(Picture(color, None, FORMATS["png8"], 3), mask, WHOLE, color, mask, ink, ink, color)


def paint(parts: torch.Tensor, ink: np.ndarray, mask: np.ndarray | None = None, gap_px: float = 0.0) -> np.ndarray:
    """Paint a drawing of which `parts` are read, from a key with part 1 above part 2."""
    mask = np.ones((SIDE, SIDE), np.float32) if mask is None else mask
    picture = Picture(1 - np.repeat(ink[..., None], 3, 2), None, FORMATS["png8"], 3)
    frame = PreparedFrame(picture, LineArt(ink), mask, WHOLE, ink, mask, gap_px)
    key = prepared_key()
    return paint_match(part_map(parts, mask), frame, key_map(part_map(halves(1, 2), key.mask_canvas), key)).color


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


def test_an_open_line_parts_two_colors_where_gaps_are_closed():
    ink = line_across()
    ink[31:33, 30:36] = 0
    leaking, closed = (paint(halves(1, 2), ink, gap_px=gap) for gap in (0.0, 12.0))
    assert np.ptp(leaking, axis=(0, 1)).max() == 0
    assert np.allclose(closed[:26], RED, atol=0.02) and np.allclose(closed[38:], BLUE, atol=0.02)


def test_cells_without_a_region_and_cells_without_a_color_have_no_voice():
    draw = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=draw)

    def map_of(rows: int, columns: int) -> PartMap:
        return PartMap(random(5, rows, columns).softmax(0), random(0, rows, columns), random(2, rows, columns))

    def readings(count: int, cells: torch.Tensor) -> RegionReadings:
        return RegionReadings(
            random(count, 5).softmax(1), random(count, 2), random(count), random(count, 0), random(count, 7), cells,
            torch.zeros(count, 4, 32, 32),
        )

    frame, key_parts = map_of(4, 3), map_of(3, 5)
    shares = torch.zeros(2, 12)
    shares[0, 3:5], shares[1, 7] = 0.5, 1.0     # two regions on three cells of twelve
    shown = torch.zeros(3, 5, 3)
    shown[1, 2, 0] = shown[2, 3, 1] = shown[2, 4, 2] = 1.0   # three cells of the key show a color
    key = KeyMap(key_parts, shown, readings(3, random(3, 15)), torch.arange(3), random(3, 3))
    regions = readings(2, shares)
    before = rule_scores(frame, regions, key)
    # What those others show is changed beyond recognition.
    frame.parts.flatten(1)[:, shares.sum(0) == 0] = random(5, 9).softmax(0)
    key_parts.parts.flatten(1)[:, shown.flatten(0, 1).sum(1) == 0] = random(5, 12).softmax(0)
    assert torch.equal(rule_scores(frame, regions, key), before)
    # One that has a voice is heard.
    frame.parts[:, 1, 0] = random(5).softmax(0)
    assert not torch.equal(rule_scores(frame, regions, key), before)


def framed(ink: np.ndarray) -> PreparedFrame:
    mask = np.ones((SIDE, SIDE), np.float32)
    picture = Picture(1 - np.repeat(ink[..., None], 3, 2), None, FORMATS["png8"], 3)
    return PreparedFrame(picture, LineArt(ink), mask, WHOLE, ink, mask)


def read_key(parts: torch.Tensor, key: PreparedKey) -> KeyMap:
    return key_map(part_map(parts, key.mask_canvas), key)


def test_a_second_key_colors_what_only_it_shows():
    one = read_key(halves(1, 1), prepared_key(RED, RED))
    other = read_key(halves(2, 2), prepared_key(BLUE, BLUE))
    frame = framed(line_across())
    painted = paint_match(part_map(halves(1, 2), frame.mask_canvas), frame, join_key_maps([one, other])).color
    assert np.allclose(painted[:28], RED, atol=0.02) and np.allclose(painted[36:], BLUE, atol=0.02)


def test_a_color_that_two_keys_show_is_one_color():
    nearly_red = (0.9, 0.1, 0.11)
    keys = [read_key(halves(1, 2), prepared_key()), read_key(halves(1, 2), prepared_key(nearly_red, BLUE))]
    joined = join_key_maps(keys)
    assert len(joined.palette) == 2 and len(joined.region_colors) == 4
    assert torch.equal(joined.palette, keys[0].palette)
    # Each color lies on half of the cells of both keys.
    torch.testing.assert_close(joined.cell_colors.sum((0, 1)), torch.tensor([64.0, 64.0]))


def test_a_key_joined_with_itself_says_the_same():
    key, frame = read_key(halves(1, 2), prepared_key()), framed(line_across())
    parts = part_map(halves(1, 2), frame.mask_canvas)
    once, twice = (match_frame(parts, frame, keys).scores for keys in (key, join_key_maps([key, key])))
    torch.testing.assert_close(once, twice)
