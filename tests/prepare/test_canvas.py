"""The canvas keeps the aspect, and a frame comes back at exactly its size and place."""

import itertools

import numpy as np
import pytest

from colorcli.model.preprocess import letterbox_box
from colorcli.prepare.canvas import (
    autofit_size,
    bounds,
    fit_canvas,
    from_canvas,
    letterboxed,
    published_ink,
    to_canvas,
    with_margin,
)
from tests.golden.loading import letterbox_sketch

MINI = {"area": 320 * 320, "multiple_of": 32, "min_side": 128, "max_side": 1024}
SIZES = [(64, 64), (65, 91), (640, 480), (719, 1281), (1280, 720), (2160, 3840), (4096, 64)]


@pytest.mark.parametrize("source", SIZES)
def test_a_frame_comes_back_at_its_own_size(source: tuple[int, int]) -> None:
    width, height = source
    around, edge = (-7, -13, width + 20, height + 31), (-50, 0, 60, height)
    part = (width // 3, 5, width // 2 + 1, height)
    for crop in (None, around, part, edge):
        canvas = fit_canvas(source, **MINI, crop=crop)
        laid = to_canvas(np.full((height, width, 3), 0.5, np.float32), canvas, 1.0)
        assert laid.shape == (canvas.size[1], canvas.size[0], 3)
        assert from_canvas(laid, canvas, 1.0).shape == (height, width, 3)


@pytest.mark.parametrize("source", SIZES)
def test_the_canvas_has_the_sides_a_model_can_take_and_the_aspect_of_the_frame(source: tuple[int, int]) -> None:
    canvas = fit_canvas(source, **MINI)
    for side in canvas.size:
        assert side % 32 == 0 and 128 <= side <= 1024
    left, top, width, height = canvas.window
    assert abs(width / source[0] - height / source[1]) * max(source) <= 1
    assert abs(canvas.size[0] - width - 2 * left) <= 1 and abs(canvas.size[1] - height - 2 * top) <= 1


def test_the_canvas_wastes_little_on_paper() -> None:
    for width, height in itertools.product(range(200, 2000, 171), repeat=2):
        canvas = fit_canvas((width, height), **MINI)
        covered = canvas.window[2] * canvas.window[3] / (canvas.size[0] * canvas.size[1])
        assert covered > (0.8 if max(width / height, height / width) < 4 else 0.6), (width, height, canvas)


def test_a_mark_comes_back_to_its_place() -> None:
    image = np.zeros((720, 1280), np.float32)
    image[300:420, 500:620] = 1
    canvas = fit_canvas((1280, 720), **MINI, crop=(400, -100, 500, 900))
    back = from_canvas(to_canvas(image, canvas, 0), canvas, 0)
    rows, columns = np.nonzero(back > 0.5)
    assert abs(rows.mean() - 359.5) < 1 and abs(columns.mean() - 559.5) < 1
    assert abs((back > 0.5).sum() - 120 * 120) < 0.05 * 120 * 120


def test_outside_the_frame_is_paper_and_outside_the_crop_is_fill() -> None:
    canvas = fit_canvas((100, 100), **MINI, crop=(-50, -50, 100, 100))
    laid = to_canvas(np.zeros((100, 100), np.float32), canvas, 1.0)
    left, top, width, height = canvas.window
    assert laid[: top + height // 2 - 8].min() == 1 and laid[top + height // 2 + 8, left + width // 2 + 8] == 0
    back = from_canvas(laid, canvas, 0.25)
    assert back[2:48, 2:48].max() == 0 and (back[50:] == 0.25).all() and (back[:, 50:] == 0.25).all()


def test_a_picture_that_needs_no_scaling_is_returned_as_it_is() -> None:
    image = np.random.default_rng(0).random((320, 320, 3)).astype(np.float32)
    canvas = fit_canvas((320, 320), **MINI)
    np.testing.assert_array_equal(from_canvas(to_canvas(image, canvas, 1), canvas, 1), image)


def test_bounds_and_margin() -> None:
    mask = np.zeros((50, 60))
    assert bounds(mask) is None
    mask[10:20, 30:50] = 1
    assert bounds(mask) == (30, 10, 20, 10)
    assert with_margin((30, 10, 20, 10), 0.25) == (25, 5, 30, 20)


XL = {"area": 1024 * 1024, "multiple_of": 32, "min_side": 768, "max_side": 1536}


@pytest.mark.parametrize(
    ("source", "size"),
    [((1000, 1500), (832, 1248)), ((1920, 1080), (1376, 768)), ((800, 3000), (768, 1536)), ((640, 640), (1024, 1024))],
)
def test_the_published_automatic_size_gives_the_published_examples(source, size):
    assert autofit_size(source, **XL) == size


def test_a_canvas_of_a_given_size_holds_the_whole_crop_in_its_middle():
    canvas = fit_canvas((1920, 1080), **XL, size=(1024, 1024))
    assert canvas.size == (1024, 1024)
    assert canvas.window == (0, 224, 1024, 576)


@pytest.mark.parametrize("source", SIZES)
@pytest.mark.parametrize("size", [(1024, 1024), (1376, 768), (768, 1536)])
def test_the_published_letterbox_lies_where_its_golden_numbers_say(source, size):
    assert letterboxed(source, size).window == letterbox_box(source[::-1], size[::-1])


def test_the_published_ink_is_the_published_sketch_of_a_gray_drawing():
    """`letterbox_sketch` is held to the golden numbers of the published program."""
    gray = np.random.default_rng(1).integers(0, 256, (70, 50), np.uint8)
    canvas = letterboxed((50, 70), (96, 64))
    rgb = np.repeat(gray[:, :, None], 3, axis=2)
    sketch, _ = letterbox_sketch(rgb, (64, 96), mode="invert", system="xl")
    ink = published_ink(rgb.astype(np.float32) / 255, canvas)
    np.testing.assert_allclose(ink * 2 - 1, sketch[0, 0].numpy(), atol=1e-6)
