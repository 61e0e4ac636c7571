"""What is done at random to pictures happens as often as published, and does what it says."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from colorcli.train.data.augment import (
    Layers,
    MaskChanges,
    blank_margins,
    change_mask,
    flat_background,
    jittered,
    turned,
)

DRAWS = 1200


def within(count: int, expected: float, draws: int = DRAWS) -> bool:
    """Whether a count is within four standard deviations of what a probability gives."""
    return abs(count - expected * draws) < 4 * (expected * (1 - expected) * draws) ** 0.5


def margins(most: int, seed: int) -> tuple[int, int, int, int]:
    """Blanked rows at top and bottom and columns left and right of a black drawing of 60x50."""
    blanked = blank_margins(np.zeros((60, 50, 3), np.uint8), most, most, np.random.default_rng(seed))
    rows, columns = (blanked[:, :, 0] == 0).any(1), (blanked[:, :, 0] == 0).any(0)
    assert set(np.unique(blanked)) <= {0, 255}
    return int(rows.argmax()), int(rows[::-1].argmax()), int(columns.argmax()), int(columns[::-1].argmax())


def test_margins_are_blanked_in_three_of_four_cases_alike_on_both_sides() -> None:
    most = 9
    seen: Counter[str] = Counter()
    depths: Counter[int] = Counter()
    for seed in range(DRAWS):
        top, bottom, left, right = margins(most, seed)
        assert top == bottom <= most and left == right <= most
        seen["both" if top and left else "rows" if top else "columns" if left else "nothing"] += 1
        depths[top] += bool(top)
    # Each of a, b in 0..9 is 0 in a tenth of the cases; a case that blanks zero rows looks like another one.
    assert within(seen["both"], 0.25 * 0.81)
    assert within(seen["rows"], 0.25 * 0.9 + 0.25 * 0.9 * 0.1)
    assert within(seen["columns"], 0.25 * 0.9 + 0.25 * 0.9 * 0.1)
    assert within(seen["nothing"], 0.25 + 2 * 0.25 * 0.1 + 0.25 * 0.01)
    assert set(depths) - {0} == set(range(1, most + 1))


def test_rows_and_columns_have_limits_of_their_own() -> None:
    deepest = [0, 0]
    for seed in range(300):
        blanked = blank_margins(np.zeros((60, 50, 3), np.uint8), 20, 5, np.random.default_rng(seed))[:, :, 0]
        if blanked[30].any():
            deepest[1] = max(deepest[1], int((blanked[30] == 255).sum()) // 2)
        deepest[0] = max(deepest[0], int((blanked[:, 25] == 255).sum()) // 2)
    assert deepest == [20, 5]


def outcome(seed: int, changes: MaskChanges) -> str:
    """What became of a mask of one pixel, told by the shape it has then."""
    mask = np.zeros((240, 240), np.uint8)
    mask[130, 130] = 255
    changed = change_mask(mask, changes, np.random.default_rng(seed))
    assert changed.dtype == np.uint8 and changed[130, 130] == 255
    area = int((changed == 255).sum())
    assert area == np.count_nonzero(changed)
    if area == 60 * 40:
        assert (changed[120:180, 120:160] == 255).all()   # the cell that 130 lies in
        return "grid"
    if area == 21 * 21:
        assert (changed[120:141, 120:141] == 255).all()
        return "dilation"
    if area == 1:
        return "nothing"
    rows, columns = changed.any(1).sum(), changed.any(0).sum()
    assert 0.2 * 0.95 < area / 240**2 < 0.5 * 1.05
    assert rows > 1 and columns > 1
    return "rectangle"


def test_a_reference_mask_is_changed_in_one_way_as_often_as_published() -> None:
    seen = Counter(outcome(seed, MaskChanges()) for seed in range(DRAWS))
    rest = 0.67
    assert within(seen["grid"], 0.33)
    assert within(seen["rectangle"], rest * 0.33 * 0.5)
    assert within(seen["nothing"], rest * 0.33 * 0.5)
    assert within(seen["dilation"], rest * rest)


def test_with_v2_every_mask_is_widened_to_the_grid() -> None:
    assert {outcome(seed, MaskChanges(grid=1.0)) for seed in range(50)} == {"grid"}


def test_the_bounding_box_is_tried_first() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[5, 8] = mask[20, 30] = 255
    changed = change_mask(mask, MaskChanges(box=1.0, grid=1.0), np.random.default_rng(0))
    expected = np.zeros_like(mask)
    expected[5:21, 8:31] = 255
    assert np.array_equal(changed, expected)


def test_rectangles_have_the_published_shapes() -> None:
    shapes = []
    for seed in range(400):
        changed = change_mask(np.zeros((300, 300), np.uint8), MaskChanges(grid=0, erase=1, erase_done=1),
                              np.random.default_rng(seed))
        rows, columns = changed.any(1).sum(), changed.any(0).sum()
        if rows:
            assert changed.sum() == 255 * rows * columns
            shapes.append(rows / columns)
    assert len(shapes) > 390
    assert 0.18 < min(shapes) < 0.5 and 2 < max(shapes) < 3.2
    # Log-uniform from 0.2 to 3: half of those that fit are below about 0.8.
    assert 0.6 < np.median(shapes) < 1.05


@pytest.fixture
def figure() -> Layers:
    """A red box on a blue ground with lines everywhere; the box reaches the lower border."""
    color = np.full((100, 80, 3), (0, 0, 200), np.uint8)
    mask = np.zeros((100, 80), np.uint8)
    color[40:, 30:50], mask[40:, 30:50] = (200, 0, 0), 255
    sketch = np.full((100, 80, 3), 255, np.uint8)
    sketch[::4] = 0
    return Layers(*(Image.fromarray(layer) for layer in (color, sketch, mask)))


def test_a_flat_background_is_one_color_and_has_no_lines(figure: Layers) -> None:
    papers = 0
    for seed in range(60):
        target, reference = flat_background(figure, figure, np.random.default_rng(seed))
        color, sketch, mask = (np.asarray(layer) for layer in (target.color, target.sketch, target.mask))
        assert color.shape == (100, 80, 3) and mask.shape == (100, 80)
        paint = color[0, 0]
        papers += bool((paint >= 245).all() and len(set(paint.tolist())) == 1)
        far = np.asarray(target.mask.resize((80, 100))) == 0
        far[:, 20:60] = False   # Lanczos rings a few pixels around the box
        assert (np.abs(color[far].astype(int) - paint) <= 1).all()
        assert (sketch[far] == 255).all()
        assert (np.asarray(reference.color)[0, 0] == paint).all()
        assert np.array_equal(np.asarray(reference.mask), np.asarray(figure.mask))
    assert papers >= 50


def test_a_figure_on_a_flat_background_still_stands_on_the_border_in_the_middle_but_smaller(figure: Layers) -> None:
    for seed in range(20):
        target, _ = flat_background(figure, figure, np.random.default_rng(seed))
        rows, columns = (np.flatnonzero((np.asarray(target.mask) > 0).any(axis)) for axis in (1, 0))
        assert rows[-1] == 99
        assert abs((columns[0] + columns[-1]) / 2 - 39.5) <= 1
        assert 20 / 1.15 - 1 <= len(columns) <= 20 / 1.05 + 1
        assert 60 / 1.15 - 1 <= len(rows) <= 60 / 1.05 + 1


def test_picture_and_reference_are_jittered_alike(figure: Layers) -> None:
    one, other = jittered((figure.color, figure.color), 0.1, np.random.default_rng(3))
    assert np.array_equal(np.asarray(one), np.asarray(other))
    change = np.asarray(one).astype(int) - np.asarray(figure.color)
    assert 0 < np.abs(change).max() < 60


def test_a_rotated_reference_keeps_its_mask_on_its_character(figure: Layers) -> None:
    rotated = turned(figure, 30)
    assert np.asarray(rotated.color)[0, 0].tolist() == [255, 255, 255]
    inside = np.asarray(rotated.mask) > 250
    assert inside.sum() > 500
    assert (np.asarray(rotated.color)[inside][:, 0] > 150).mean() > 0.97
