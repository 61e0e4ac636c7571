import cv2
import numpy as np

from colorcli.prepare.palette import find_palette

WHITE = (1.0, 1.0, 1.0)
COLORS = ((0.8, 0.2, 0.2), (0.2, 0.6, 0.3), (0.15, 0.15, 0.5))


def disks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three antialiased disks with black outlines: color, ink, mask."""
    color = np.ones((120, 300, 3), np.float32)
    ink, mask = np.zeros((120, 300), np.float32), np.zeros((120, 300), np.float32)
    for i, flat in enumerate(COLORS):
        center = (50 + 100 * i, 60)
        cv2.circle(color, center, 40 - 8 * i, flat, -1, cv2.LINE_AA)
        cv2.circle(color, center, 40 - 8 * i, (0, 0, 0), 2, cv2.LINE_AA)
        cv2.circle(ink, center, 40 - 8 * i, 1.0, 2, cv2.LINE_AA)
        cv2.circle(mask, center, 40 - 8 * i, 1.0, -1)
    return color, ink, mask


def test_the_palette_is_the_flat_colors_without_mixtures_of_edges():
    palette = find_palette(*disks())
    assert len(palette.colors) == 3
    assert np.allclose(palette.colors, COLORS, atol=0.01)  # the largest disk first


def test_every_counted_pixel_names_its_color():
    color, ink, mask = disks()
    palette = find_palette(color, ink, mask)
    for i, flat in enumerate(COLORS):
        assert palette.index[60, 50 + 100 * i] == i
        assert np.allclose(palette.colors[palette.index[60, 50 + 100 * i]], flat, atol=0.01)
    assert palette.index[5, 5] == -1


def test_an_empty_mask_gives_white():
    color, ink, mask = disks()
    assert np.allclose(find_palette(color, ink, np.zeros_like(mask)).colors, [WHITE])
