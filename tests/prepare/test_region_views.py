import numpy as np
import pytest

from colorcli.prepare.region_views import CLOSE_MARGIN, INK_VIEWS, VIEW_SIDE, VIEWS, region_views
from colorcli.prepare.regions import Regions, closed_regions

CLOSE_REGION, WIDE_REGION = 1, 3


def boxes(*corners: tuple[int, int, int, int], size: tuple[int, int] = (200, 300)) -> tuple[Regions, np.ndarray]:
    """Regions inside drawn boxes (left, top, right, bottom), and the ink."""
    ink = np.zeros(size, np.float32)
    mask = np.zeros(size, np.float32)
    for left, top, right, bottom in corners:
        mask[top : bottom + 1, left : right + 1] = 1
        ink[[top, bottom], left : right + 1] = 1
        ink[top : bottom + 1, [left, right]] = 1
    return closed_regions(ink, mask), ink


def share(view: np.ndarray) -> float:
    return float(view.mean() / 255)


def test_the_close_view_of_a_square_is_filled_by_the_margin_whatever_its_size():
    regions, ink = boxes((20, 20, 50, 50), (100, 20, 200, 120))
    views = region_views(regions, ink, figure_height=200)
    assert views.shape == (2, VIEWS, VIEW_SIDE, VIEW_SIDE)
    for view in views:
        assert share(view[CLOSE_REGION]) == pytest.approx(1 / CLOSE_MARGIN**2, abs=0.03)


def test_the_wide_view_tells_the_size_in_the_figure():
    regions, ink = boxes((20, 20, 50, 50), (100, 20, 130, 50))
    large, small = (region_views(regions, ink, height)[:, WIDE_REGION] for height in (200, 400))
    assert share(large[0]) == pytest.approx(share(large[1]), abs=0.01)
    assert share(large) / share(small) == pytest.approx(4, rel=0.1)


def test_each_region_is_seen_alone_but_with_all_ink_around():
    regions, ink = boxes((20, 20, 50, 50), (50, 20, 80, 50))
    views = region_views(regions, ink, figure_height=300)
    left, right = views[:, WIDE_REGION].astype(int).sum((1, 2))
    assert left == pytest.approx(right, rel=0.1)
    assert not (np.minimum(views[0, WIDE_REGION], views[1, WIDE_REGION]) > 128)[:, 12:20].all()
    assert share(views[0, INK_VIEWS[1]]) == pytest.approx(share(views[1, INK_VIEWS[1]]), rel=0.25)


def test_a_mirrored_drawing_gives_mirrored_views():
    _, ink = boxes((20, 20, 50, 60), (100, 70, 180, 120))
    mirrored, mirrored_ink = closed_regions(ink[:, ::-1], np.ones_like(ink)), ink[:, ::-1].copy()
    plain = closed_regions(ink, np.ones_like(ink))
    by_area = [np.argsort(each.areas[1:]) for each in (plain, mirrored)]
    one = region_views(plain, ink, 200)[by_area[0]].astype(int)
    other = region_views(mirrored, mirrored_ink, 200)[by_area[1]].astype(int)
    assert np.abs(one - other[..., ::-1]).mean() < 8


def test_a_region_at_the_edge_of_the_picture_sees_nothing_beyond_it():
    regions, ink = boxes((0, 0, 30, 30))
    view = region_views(regions, ink, figure_height=400)[0]
    assert view[INK_VIEWS[1]][:8].max() == 0 and view[WIDE_REGION][:8].max() == 0
