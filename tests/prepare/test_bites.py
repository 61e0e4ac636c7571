"""A bite is closed where the figure is, with the result that closing the whole frame has."""

import cv2
import numpy as np
import pytest

from colorcli.prepare import masks


@pytest.mark.parametrize("left", [0, 40, 150])
def test_the_notch_of_a_figure_anywhere_in_the_frame_is_given_back(left):
    outside = np.ones((300, 300), np.uint8)
    outside[100:200, left : left + 100] = 0          # a square figure
    outside[100:103, left + 50 : left + 53] = 1      # with a bite in its upper side
    closed = masks._without_bites(outside, barrier=np.zeros_like(outside))
    side = 2 * round(masks.BITE * 300) + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    whole = cv2.morphologyEx(np.pad(1 - outside, side), cv2.MORPH_CLOSE, disk)[side:-side, side:-side]
    assert (closed == 1 - whole).all()
    assert (closed != outside).sum() >= 6   # of nine pixels, those at the mouth keep the disk's round edge


def test_a_frame_without_a_figure_stays_as_it_is():
    empty = np.ones((50, 60), np.uint8)
    assert (masks._without_bites(empty, np.zeros_like(empty)) == 1).all()
