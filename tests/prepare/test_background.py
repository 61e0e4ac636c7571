"""Bleaching keeps the background and takes the character out."""

import numpy as np
import pytest

from colorcli.prepare.background import aspect_crop_fractions, bleach


def test_the_character_becomes_white_and_the_background_stays() -> None:
    key = np.full((4, 6, 3), 0.3, np.float32)
    mask = np.zeros((4, 6), np.float32)
    mask[:, 3:], mask[:, 2] = 1, 0.5
    bleached = bleach(key, mask, 0.5)
    assert (bleached[:, :2] == np.float32(0.3)).all() and (bleached[:, 2:] == 1).all()


@pytest.mark.parametrize(("canvas", "background"), [((512, 768), (400, 400)), ((768, 512), (300, 900))])
def test_the_cropped_background_has_the_aspect_of_the_canvas(
    canvas: tuple[int, int], background: tuple[int, int]
) -> None:
    down, across = aspect_crop_fractions(canvas, background)
    assert max(down, across) == 1 and min(down, across) > 0
    assert (across * background[1]) / (down * background[0]) == pytest.approx(canvas[1] / canvas[0])
