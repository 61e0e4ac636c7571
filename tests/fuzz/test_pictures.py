"""Pictures of all kinds, damaged and lying: each is read as what it is, or refused by name."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from colorcli.errors import FrameError
from colorcli.images import over_paper, picture_digest, read_picture, read_size, write_picture
from tests.fuzz.mutations import edited, scratch, with_right_sums

MOST = 1_000_000  # pixels


@functools.cache
def whole_files() -> dict[str, bytes]:
    """A small file of every kind and of the ways there are to write it."""
    rng = np.random.default_rng(3)
    made: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)

        def by_library(name: str, kind: str, channels: int, **attributes: object) -> None:
            spec = oiio.ImageSpec(21, 13, channels, kind)
            for key, value in attributes.items():
                if key == "tile":
                    spec.tile_width = spec.tile_height = 16
                else:
                    spec.attribute(key, value)
            output = oiio.ImageOutput.create(name)
            assert output.open(str(folder / name), spec), name
            assert output.write_image(rng.random((13, 21, channels), np.float32)) and output.close()
            made[name] = (folder / name).read_bytes()

        by_library("rgb.png", "uint8", 3)
        by_library("rgba16.png", "uint16", 4)
        by_library("gray.png", "uint8", 1)
        by_library("none.tif", "uint8", 3, compression="none")
        by_library("lzw.tif", "uint16", 4, compression="lzw")
        by_library("tiled.tif", "uint8", 3, compression="zip", tile=16)
        by_library("float.tif", "float", 3, compression="zip")
        by_library("packbits.tif", "uint8", 1, compression="packbits")
        by_library("raw.tga", "uint8", 4, compression="none")
        by_library("rle.tga", "uint8", 3, compression="rle")
        by_library("base.jpg", "uint8", 3)
        for compression in ("none", "rle", "zips", "zip", "piz", "pxr24", "b44", "dwaa"):
            by_library(f"{compression}.exr", "half", 4, compression=compression)
        by_library("tiled.exr", "float", 3, tile=16)
        picture = Image.fromarray(rng.integers(0, 255, (13, 21, 3), np.uint8))
        picture.save(folder / "progressive.jpg", progressive=True, exif=b"Exif\0\0MM\0*\0\0\0\x08" + bytes(12))
        picture.quantize(16).save(folder / "palette.png", transparency=3)
        picture.convert("1").save(folder / "bits.png")
        picture.convert("CMYK").save(folder / "cmyk.jpg")
        picture.save(folder / "jpeg.tif", compression="jpeg")
        picture.convert("L").save(folder / "gray.tga", rle=True)
        for file in folder.iterdir():
            made.setdefault(file.name, file.read_bytes())
    return made


def look_at(path: Path) -> None:
    """Read a file as a run would: whatever it is, it is a picture of numbers from 0 to 1, or a frame that failed."""
    size = None
    try:
        size = read_size(path, MOST)
        assert 0 < size[0] * size[1] <= MOST
    except FrameError as error:
        assert path.name in error.message and error.hint
    try:
        picture = read_picture(path, MOST)
    except FrameError as error:
        assert path.name in error.message and error.hint
        return
    assert picture.size == size
    assert picture.color.shape == (*picture.size[::-1], 3)
    layers = [picture.color, over_paper(picture)] + ([picture.alpha] if picture.alpha is not None else [])
    for layer in layers:
        assert layer.dtype == np.float32
        assert np.isfinite(layer).all() and layer.min() >= 0 and layer.max() <= 1
    assert len(picture_digest(picture)) == 64


@given(st.data())
def test_a_damaged_picture_is_read_or_refused(data):
    name = data.draw(st.sampled_from(sorted(whole_files())))
    content = data.draw(edited(whole_files()[name]))
    if name.endswith(".png") and data.draw(st.booleans()):
        content = with_right_sums(content)
    suffix = Path(name).suffix if data.draw(st.integers(0, 9)) else data.draw(st.sampled_from((".png", ".tga", ".exr")))
    with scratch() as folder:
        path = folder / f"walk.0001{suffix}"
        path.write_bytes(content)
        look_at(path)


BEGINNINGS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
    b"v/1\x01\x02\0\0\0",
    b"\0\0\x02",
    b"\0\0\x0a",
    b"\0\x01\x01",
    b"\0\x01\x09",
    b"",
)


@given(st.sampled_from(BEGINNINGS), st.binary(max_size=400), st.sampled_from((".png", ".jpg", ".tif", ".exr", ".tga")))
def test_bytes_that_only_begin_like_a_picture_are_read_or_refused(begin, more, suffix):
    with scratch() as folder:
        path = folder / f"walk.0001{suffix}"
        path.write_bytes(begin + more)
        look_at(path)


@given(arrays.arrays(np.uint32, st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from((1, 3, 4)))))
def test_an_exr_of_any_numbers_is_a_picture_and_can_be_written_again(bits: NDArray[np.uint32]):
    pixels = bits.view(np.float32)  # every bit pattern: numbers that are none, infinite and hardly there
    with scratch() as folder:
        path = folder / "a.exr"
        spec = oiio.ImageSpec(pixels.shape[1], pixels.shape[0], pixels.shape[2], "float")
        output = oiio.ImageOutput.create("openexr")
        assert output.open(str(path), spec) and output.write_image(pixels) and output.close()
        look_at(path)
        picture = read_picture(path)
        write_picture(folder / "b.exr", picture.color, picture.alpha, picture.format)
        again = read_picture(folder / "b.exr")
        seen = np.ones((*picture.size[::-1], 1), bool) if picture.alpha is None else picture.alpha[:, :, None] > 1e-3
        np.testing.assert_allclose(again.color * seen, picture.color * seen, atol=2e-3)
