"""Layered PSD files, read back by psd-tools and by OpenImageIO, which share no code."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import OpenImageIO as oiio
import pytest
from psd_tools import PSDImage
from psd_tools.constants import Resource

from colorcli.errors import FrameError
from colorcli.finish.psd import PsdGroup, PsdLayer, write_psd

RANDOM = np.random.default_rng(5)
COLOR = RANDOM.random((20, 30, 3)).astype(np.float32)
ALPHA = RANDOM.random((20, 30)).astype(np.float32)
LAYERS = (
    PsdLayer("below", 0, 0, COLOR, None),
    PsdGroup(
        "two",
        (PsdLayer("one", 4, 3, COLOR[:9, :8], None), PsdLayer("other", 4, 3, COLOR[:9, :8], None, multiply=True)),
        left=4,
        top=3,
        mask=ALPHA[:9, :8],
        visible=False,
    ),
    PsdLayer("gray", 7, 2, ALPHA[:5, :6], None, visible=False),
    PsdLayer("above", 5, 6, COLOR[:4, :3], ALPHA[:4, :3]),
)


def layers_by_oiio(path: Path) -> dict[str, tuple[int, int, int, int]]:
    """Name -> left, top, width and height of every layer with pixels."""
    source = oiio.ImageInput.open(str(path))
    assert source is not None, oiio.geterror()
    found = {}
    number = 1   # the first one is the merged picture
    while source.seek_subimage(number, 0):
        spec = source.spec()
        if spec.width > 1:
            found[spec.getattribute("oiio:subimagename")] = spec.x, spec.y, spec.width, spec.height
        number += 1
    return found


@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("alpha", [None, ALPHA], ids=["opaque", "alpha"])
def test_two_readers_find_the_layers_where_they_were_put(tmp_path: Path, deep: bool, alpha: np.ndarray | None) -> None:
    path = tmp_path / "a.psd"
    write_psd(path, LAYERS, COLOR, alpha, deep=deep)
    opened, level = PSDImage.open(path), 1 / (65535 if deep else 255)
    below, group, gray, above = opened
    assert [layer.name for layer in opened] == ["below", "two", "gray", "above"]
    assert [layer.visible for layer in opened] == [True, False, False, True]
    assert [layer.name for layer in group] == ["one", "other"]
    assert group[1].blend_mode.name == "MULTIPLY" and not group[1].clipping
    assert above.offset == (5, 6)
    assert np.abs(below.numpy("color") - COLOR).max() <= level
    assert np.abs(above.numpy("shape")[..., 0] - ALPHA[:4, :3]).max() <= level
    assert np.abs(gray.numpy("color") - ALPHA[:5, :6, None]).max() <= level
    assert group.mask.bbox == (4, 3, 12, 12)
    assert np.abs(np.asarray(group.mask.topil(), np.float64) / 255 - ALPHA[:9, :8]).max() <= 1 / 255
    found = layers_by_oiio(path)
    assert found["below"] == (0, 0, 30, 20) and found["above"] == (5, 6, 3, 4) and found["one"] == (4, 3, 8, 9)


def test_the_file_says_that_it_is_srgb_and_what_made_it_and_not_when(tmp_path: Path) -> None:
    notes = {"Software": 'colorcli <1> & "more"', "colorcli.model": "mini\nKäse", "DigitalSourceType": "http://a/b?c&d"}
    for name in ("a.psd", "b.psd"):
        write_psd(tmp_path / name, LAYERS, COLOR, None, deep=False, notes=notes)
    assert (tmp_path / "a.psd").read_bytes() == (tmp_path / "b.psd").read_bytes()
    resources = PSDImage.open(tmp_path / "a.psd").image_resources
    told = "".join(ElementTree.fromstring(resources.get_data(Resource.XMP_METADATA)).itertext())
    assert all(text in told for text in notes.values())
    profile = resources.get_data(Resource.ICC_PROFILE)
    assert b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile
    assert profile[24:36] == bytes(12)


def test_a_frame_that_is_larger_than_a_psd_may_be_is_refused(tmp_path: Path) -> None:
    wide = np.zeros((1, 30_001, 3), np.float32)
    with pytest.raises(FrameError, match="30001x1"):
        write_psd(tmp_path / "wide.psd", [PsdLayer("wide", 0, 0, wide, None)], wide, None, deep=False)
    assert list(tmp_path.iterdir()) == []
