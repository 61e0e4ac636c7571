"""Pictures go in and out unchanged, and every broken file is named."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest

from colorcli.errors import FrameError, OutputError
from colorcli.files import file_digest
from colorcli.images import (
    PixelFormat,
    decode_srgb,
    encode_srgb,
    extension_of,
    format_named,
    over_paper,
    picture_digest,
    read_picture,
    read_size,
    write_picture,
)

PNG = PixelFormat("png", "uint8")


def raw_file(path: Path, pixels: np.ndarray, **attributes: object) -> Path:
    """Write pixels with OpenImageIO alone, straight alpha unless told otherwise."""
    height, width, channels = pixels.shape
    kind = {"uint8": "uint8", "uint16": "uint16", "float16": "half", "float32": "float"}[str(pixels.dtype)]
    spec = oiio.ImageSpec(width, height, channels, kind)
    if channels in (2, 4):
        spec.alpha_channel = channels - 1
        spec.channelnames = ("Y", "A") if channels == 2 else ("R", "G", "B", "A")
    for name, value in ({"oiio:UnassociatedAlpha": 1} | attributes).items():
        spec.attribute(name, value)
    output = oiio.ImageOutput.create(str(path))
    assert output.open(str(path), spec) and output.write_image(pixels) and output.close()
    return path


def raw_pixels(path: Path) -> np.ndarray:
    """Read pixels as they lie in the file."""
    wish = oiio.ImageSpec()
    wish.attribute("oiio:UnassociatedAlpha", 1)
    source = oiio.ImageInput.open(str(path), wish)
    return np.asarray(source.read_image("unknown"))


def noise(height: int, width: int, channels: int, dtype: str) -> np.ndarray:
    draw = np.random.default_rng(1)
    pixels = draw.integers(0, np.iinfo(dtype).max + 1, (height, width, channels)).astype(dtype)
    if channels in (2, 4):
        pixels[: height // 3, :, -1] = 0
    return pixels


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(("extension", "dtype"), [(".png", "uint8"), (".png", "uint16"), (".tif", "uint8"),
                                                  (".tif", "uint16"), (".tga", "uint8")])
def test_a_picture_read_and_written_again_has_the_same_pixels(
    tmp_path: Path, extension: str, dtype: str, channels: int
) -> None:
    source = raw_file(tmp_path / f"in{extension}", noise(65, 97, channels, dtype))
    picture = read_picture(source)
    assert (picture.size, picture.channels, picture.format.depth) == ((97, 65), channels, dtype)
    write_picture(tmp_path / f"out{extension}", picture.color, picture.alpha, picture.format)
    np.testing.assert_array_equal(raw_pixels(tmp_path / f"out{extension}"), raw_pixels(source))
    assert picture_digest(read_picture(tmp_path / f"out{extension}")) == picture_digest(picture)


@pytest.mark.parametrize(("extension", "other"), [(".exr", ".png"), (".png", ".exr")])
def test_a_picture_with_the_extension_of_another_kind_has_its_own_colors(
    tmp_path: Path, extension: str, other: str
) -> None:
    pixels = np.full((3, 4, 3), 0.5, np.float32) if extension == ".exr" else np.full((3, 4, 3), 128, np.uint8)
    source = raw_file(tmp_path / f"a{extension}", pixels)
    renamed = source.rename(tmp_path / f"b{other}")
    linear_half = 1.055 * 0.5 ** (1 / 2.4) - 0.055   # IEC 61966-2-1
    color = read_picture(renamed).color
    np.testing.assert_allclose(color, linear_half if extension == ".exr" else 128 / 255, atol=1e-6)


@pytest.mark.parametrize(("extension", "channels"), [(".png", 1), (".png", 2), (".tif", 1), (".tif", 2), (".tga", 1)])
def test_gray_pictures_become_three_equal_channels(tmp_path: Path, extension: str, channels: int) -> None:
    pixels = noise(33, 20, channels, "uint8")
    picture = read_picture(raw_file(tmp_path / f"gray{extension}", pixels))
    assert picture.channels == channels
    for channel in range(3):
        np.testing.assert_array_equal(np.round(picture.color[:, :, channel] * 255), pixels[:, :, 0])
    if channels == 2:
        assert picture.alpha is not None
        np.testing.assert_array_equal(np.round(picture.alpha * 255), pixels[:, :, 1])


@pytest.mark.parametrize(("depth", "tolerance"), [("half", 1e-3), ("float", 1e-6)])
def test_an_exr_is_linear_and_multiplied_by_alpha_in_the_file_and_neither_in_memory(
    tmp_path: Path, depth: str, tolerance: float
) -> None:
    color = np.full((8, 9, 3), 0.5, np.float32)
    alpha = np.full((8, 9), 0.25, np.float32)
    pixel_format = format_named(f"exr-{depth}", PNG)
    path = tmp_path / "frame.exr"
    write_picture(path, color, alpha, pixel_format)
    # 0.5 encoded is 0.2140 linear (IEC 61966-2-1), times alpha.
    np.testing.assert_allclose(raw_pixels(path)[0, 0], [0.21404 * 0.25] * 3 + [0.25], rtol=2e-3)
    picture = read_picture(path)
    assert picture.format == pixel_format and picture.alpha is not None
    np.testing.assert_allclose(picture.color, color, atol=tolerance)
    np.testing.assert_allclose(picture.alpha, alpha, atol=tolerance)


def test_an_exr_with_a_small_data_window_fills_the_whole_frame(tmp_path: Path) -> None:
    spec = oiio.ImageSpec(4, 3, 4, "half")
    spec.x, spec.y, spec.full_width, spec.full_height = 5, 6, 20, 10
    output = oiio.ImageOutput.create("openexr")
    path = tmp_path / "window.exr"
    assert output.open(str(path), spec) and output.write_image(np.ones((3, 4, 4), np.float32)) and output.close()
    picture = read_picture(path)
    assert read_size(path) == picture.size == (20, 10)
    assert picture.alpha is not None and picture.alpha.sum() == 12 and picture.alpha[6:9, 5:9].all()


def test_a_premultiplied_tiff_is_taken_off_its_alpha(tmp_path: Path) -> None:
    pixels = np.full((4, 4, 4), 64, np.uint8)
    pixels[:, :, 3] = 128
    path = raw_file(tmp_path / "associated.tif", pixels, **{"oiio:UnassociatedAlpha": 0})
    np.testing.assert_allclose(read_picture(path).color, 0.5, atol=1e-3)


def test_a_turned_jpeg_stands_upright(tmp_path: Path) -> None:
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255
    picture = read_picture(raw_file(tmp_path / "turned.jpg", pixels, Orientation=6))
    assert picture.size == read_size(tmp_path / "turned.jpg") == (16, 32)
    assert picture.color[:14].mean() > 0.9 and picture.color[18:].mean() < 0.1


def test_paper_shows_through_what_is_transparent(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[0, 0] = 0, 0, 0, 255
    pixels[0, 1] = 0, 0, 0, 51
    paper = over_paper(read_picture(raw_file(tmp_path / "a.png", pixels)))
    np.testing.assert_allclose(paper[0, :, 0], [0, 0.8, 1], atol=1e-6)


def test_a_jpeg_is_laid_over_white_paper(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg", np.zeros((16, 16, 3), np.float32), np.zeros((16, 16), np.float32),
                  PixelFormat("jpeg", "uint8"))
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.alpha is None and picture.color.min() > 0.99


def test_a_depth_that_a_container_lacks_becomes_the_nearest_one(tmp_path: Path) -> None:
    color = np.random.default_rng(0).random((9, 9, 3)).astype(np.float32)
    for pixel_format, depth in ((PixelFormat("tga", "uint16"), "uint8"), (PixelFormat("png", "half"), "uint16")):
        path = tmp_path / f"a{extension_of(pixel_format)}"
        write_picture(path, color, None, pixel_format)
        assert read_picture(path).format.depth == depth


def test_the_srgb_curve_is_its_own_inverse_and_meets_known_values() -> None:
    values = np.linspace(0, 1, 1001, dtype=np.float32)
    np.testing.assert_allclose(encode_srgb(decode_srgb(values)), values, atol=2e-6)
    np.testing.assert_allclose(encode_srgb(np.float32([0.0031308, 0.18, 1.0])), [0.04045, 0.46135, 1.0], atol=1e-4)


def test_the_digest_is_of_pixels_and_not_of_the_file(tmp_path: Path) -> None:
    pixels = noise(20, 20, 4, "uint8")
    one = raw_file(tmp_path / "one.png", pixels, **{"png:compressionLevel": 1})
    two = raw_file(tmp_path / "two.tif", pixels)
    assert file_digest(one) != file_digest(two)
    assert picture_digest(read_picture(one)) == picture_digest(read_picture(two))
    pixels[5, 5, 1] ^= 1
    assert picture_digest(read_picture(raw_file(tmp_path / "three.png", pixels))) != picture_digest(read_picture(one))


def broken_files(folder: Path) -> dict[str, Path]:
    whole = raw_file(folder / "whole.png", noise(64, 64, 3, "uint8")).read_bytes()
    contents = {
        "empty.png": b"",
        "text.png": b"these are the notes for scene 4\n",
        "half.png": whole[: len(whole) // 2],
        "header.png": whole[:40],
        "altered.png": whole[:900] + bytes([whole[900] ^ 1]) + whole[901:],
        "stub.exr": b"v/1\x01",
        "half.tif": raw_file(folder / "w.tif", noise(64, 64, 3, "uint8")).read_bytes()[:3000],
        "half.tga": raw_file(folder / "w.tga", noise(64, 64, 3, "uint8")).read_bytes()[:3000],
        "half.jpg": raw_file(folder / "w.jpg", noise(64, 64, 3, "uint8")).read_bytes()[:900],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in (*contents, "missing.png")}


def test_every_broken_file_is_named_with_something_to_do(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, path in broken_files(tmp_path).items():
        with pytest.raises(FrameError) as problem:
            read_picture(path)
        assert name in problem.value.message and problem.value.hint, name
        with contextlib.suppress(FrameError):   # what begins well may have its size told
            assert read_size(path) == (64, 64), name
    # Not even by the libraries, behind Python's back.
    assert capfd.readouterr() == ("", "")


def test_a_png_without_its_last_piece_or_with_more_behind_it_is_whole(tmp_path: Path) -> None:
    whole, odd = raw_file(tmp_path / "whole.png", noise(64, 64, 3, "uint8")), tmp_path / "odd.png"
    for content in (whole.read_bytes()[:-12], whole.read_bytes() + b"from a mail"):
        odd.write_bytes(content)
        assert picture_digest(read_picture(odd)) == picture_digest(read_picture(whole))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "locked.png", noise(8, 8, 3, "uint8"))
    path.chmod(0)
    with pytest.raises(FrameError, match=r"locked\.png may not be read"):
        read_picture(path)


def test_a_picture_that_fails_to_write_leaves_the_old_one_and_no_scraps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    color = np.zeros((8, 8, 3), np.float32)
    path = tmp_path / "frame.png"
    write_picture(path, color, None, PNG)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="full") as problem:
        write_picture(path, color + 1, None, PNG)
    assert "free some space" in str(problem.value.hint)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["frame.png"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is no folder"):
        write_picture(tmp_path / "nowhere" / "a.png", np.zeros((8, 8, 3), np.float32), None, PNG)


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit there")
@pytest.mark.parametrize("extension", [".png", ".tif", ".tga", ".jpg", ".exr"])
def test_a_disk_that_runs_full_in_the_middle_is_noticed(tmp_path: Path, extension: str) -> None:
    # A limit on file size stands for the full disk: both make a write stop half-way.
    script = f"""
import resource, signal, sys
from pathlib import Path
import numpy as np
from colorcli.errors import OutputError
from colorcli.images import CONTAINERS, PixelFormat, write_picture
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
color = np.random.default_rng(0).random((300, 400, 3)).astype(np.float32)
try:
    pixel_format = PixelFormat(CONTAINERS[{extension!r}], "uint8")
    write_picture(Path({str(tmp_path)!r}) / ("a" + {extension!r}), color, None, pixel_format)
except OutputError:
    sys.exit(42)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 42, done.stderr
    assert list(tmp_path.iterdir()) == []
