"""Pictures that are larger than they look: none is decoded, and each is told apart from a damaged one."""

import io
import os
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest
from PIL import Image

from colorcli.cli import options
from colorcli.cli.color import parse_pixels
from colorcli.errors import FrameError, KeyImageError, UsageError
from colorcli.files import NotPlainError, TooLargeError, file_digest, open_plain, read_plain
from colorcli.images import MAX_PIXELS, PixelFormat, read_picture, read_size, write_picture
from tests.shot.studio import color, draw, draw_shot


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PADDING = bytes(3_000_000)   # a library that sets the file's size against the picture's lets it pass


def png(path: Path, width: int, height: int, padding: bytes = PADDING) -> Path:
    """A gray PNG of one bit a pixel, all black, of which only the first rows are there if there are many."""
    data = zlib.compress(bytes(1 + -(-width // 8)) * min(height, 2000))
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"teXt", padding) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def jpeg(path: Path, width: int, height: int, progressive: bool) -> Path:
    """A JPEG of 8x8 whose header says something else."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", progressive=progressive)
    content = bytearray(buffer.getvalue())
    place = content.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    content[place + 5 : place + 9] = struct.pack(">HH", height, width)
    path.write_bytes(content + PADDING)
    return path


def exr(path: Path, size: tuple[int, int], frame: tuple[int, int], tile: int = 0, value: float = 0.0) -> Path:
    """An EXR of `size`, in a frame of another size."""
    spec = oiio.ImageSpec(*size, 4, "half")
    spec.full_width, spec.full_height = frame
    spec.tile_width = spec.tile_height = tile
    output = oiio.ImageOutput.create("openexr")
    pixels = np.full((size[1], size[0], 4), value, np.float32)
    assert output.open(str(path), spec) and output.write_image(pixels) and output.close()
    return path


def tga(path: Path, width: int, height: int) -> Path:
    path.write_bytes(struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, width, height, 32, 0) + PADDING)
    return path


BOMBS = {
    "png": lambda folder: png(folder / "b.png", 60000, 60000),
    "flat png": lambda folder: png(folder / "b.png", 900_000, 900),
    "jpeg": lambda folder: jpeg(folder / "b.jpg", 65500, 65500, progressive=False),
    "progressive jpeg": lambda folder: jpeg(folder / "b.jpg", 65500, 65500, progressive=True),
    "exr in a large frame": lambda folder: exr(folder / "b.exr", (8, 8), (60000, 60000)),
    "tga": lambda folder: tga(folder / "b.tga", 65535, 65535),
}


@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("read", [read_size, read_picture])
def test_a_bomb_is_refused_by_its_header(tmp_path, make, read):
    path = make(tmp_path)
    assert path.stat().st_size < 4_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FrameError) as caught:
        read(path)
    # The smallest of them would be 120 MB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000
    assert path.name in caught.value.message
    # Of a TGA the library itself sets the size against the file's.
    words = "header claims image size" if path.suffix == ".tga" else "million pixels, more than the 100 million"
    assert words in caught.value.message


def test_the_message_says_the_size_and_how_to_read_it_nevertheless(tmp_path):
    with pytest.raises(FrameError) as caught:
        read_picture(png(tmp_path / "pan.png", 3000, 2000), max_pixels=5_000_000)
    assert caught.value.message == "pan.png is 3000x2000: 6 million pixels, more than the 5 million that are read"
    assert caught.value.hint == "if it really is that large: --max-pixels 6M"
    assert read_picture(tmp_path / "pan.png", max_pixels=6_000_000).size == (3000, 2000)


def test_a_picture_of_just_as_many_pixels_as_allowed_is_read(tmp_path):
    path = png(tmp_path / "a.png", 50, 20)
    assert read_size(path, 1000) == read_picture(path, 1000).size == (50, 20)
    with pytest.raises(FrameError, match=r"0\.001 million pixels, more than the 0\.000999 million"):
        read_size(path, 999)


def test_a_small_picture_in_huge_tiles_is_refused(tmp_path):
    with pytest.raises(FrameError, match="made of tiles of 8192x8192"):
        read_size(exr(tmp_path / "a.exr", (8, 8), (8, 8), tile=8192))


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".bmp", ".ppm", ".ico", ".jp2", ".psd"])
def test_only_the_five_kinds_that_are_promised_reach_a_decoder(tmp_path, suffix):
    whole = tmp_path / f"a{suffix}"
    if suffix == ".psd":
        whole.write_bytes(b"8BPS\0\1" + bytes(100))
    else:
        Image.new("RGB", (64, 64)).save(whole)
    disguised = whole.rename(tmp_path / "a.png")
    with pytest.raises(FrameError, match=r"a\.png is no picture that can be read"):
        read_picture(disguised)


@pytest.mark.parametrize("name", ["a.png", "a.tga"])
def test_a_file_that_begins_like_a_tga_and_is_an_icon_is_refused(tmp_path, name):
    """A TGA has no mark of its own, and its first bytes may be those of other kinds."""
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, 2**19 + 64, 22)
    inside = struct.pack("<IiiHHIIiiII", 40, 16, 32, 1, 32, 0, 0, 0, 0, 0, 0)
    (tmp_path / name).write_bytes(icon + inside + bytes(2**19 + 2000))
    source = oiio.ImageInput.open(str(tmp_path / name))
    assert source is not None and source.format_name() == "ico"   # as the library would read it
    source.close()
    with pytest.raises(FrameError, match=rf"{name} is no picture that can be read"):
        read_picture(tmp_path / name)


def test_a_piece_of_a_png_that_says_it_has_4_gb_is_not_waited_for(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**32 - 1) + b"IHDR" + bytes(50))
    with pytest.raises(FrameError, match="ends too early"):
        read_size(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -3.0, 70000.0])
@pytest.mark.parametrize("alpha", [np.nan, np.inf, -np.inf, -1.0, 5.0, 1e-8, 0.0, 1.0])
@pytest.mark.filterwarnings("error")
def test_what_is_no_number_in_an_exr_becomes_one_between_0_and_1(tmp_path, value, alpha):
    spec = oiio.ImageSpec(3, 2, 4, "float")
    output = oiio.ImageOutput.create("openexr")
    pixels = np.full((2, 3, 4), value, np.float32)
    pixels[:, :, 3] = alpha
    pixels[0, 0] = (0.5, 0.5, 0.5, 1)
    assert output.open(str(tmp_path / "a.exr"), spec) and output.write_image(pixels) and output.close()
    picture = read_picture(tmp_path / "a.exr")
    assert picture.alpha is not None
    for layer in (picture.color, picture.alpha):
        assert np.isfinite(layer).all() and layer.min() >= 0 and layer.max() <= 1
    np.testing.assert_allclose(picture.color[0, 0], 0.7354, atol=1e-4)   # IEC 61966-2-1
    if value == -3.0 and alpha == 1.0:
        assert picture.color[1, 1].max() == 0


@pytest.mark.parametrize("suffix", [".tif", ".tga"])
def test_more_color_than_alpha_is_full_color(tmp_path, suffix):
    spec = oiio.ImageSpec(2, 1, 4, "uint8")
    spec.attribute("oiio:UnassociatedAlpha", 0)
    output = oiio.ImageOutput.create(str(tmp_path / f"a{suffix}"))
    pixels = np.array([[[200, 100, 0, 100], [50, 25, 0, 100]]], np.uint8)
    assert output.open(str(tmp_path / f"a{suffix}"), spec) and output.write_image(pixels) and output.close()
    color = read_picture(tmp_path / f"a{suffix}").color
    assert color.max() <= 1
    if suffix == ".tif":   # which keeps what was given to it
        np.testing.assert_allclose(color[0], [[1, 1, 0], [0.5, 0.25, 0]], atol=0.01)


# --- pipes, devices, and what is too long ------------------------------------------------------------------------


def test_a_pipe_and_a_device_are_told_and_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path, kind in ((tmp_path / "pipe.png", "pipe"), (Path("/dev/zero"), "device")):
        with pytest.raises(NotPlainError, match=f"it is a {kind}, not a file"):
            open_plain(path)
        with pytest.raises(OSError):
            file_digest(path)
        with pytest.raises(FrameError, match=f"cannot be read: it is a {kind}, not a file"):
            read_size(path)
    with pytest.raises(IsADirectoryError):
        open_plain(tmp_path)


def test_a_file_is_read_up_to_a_size(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 1000)
    assert read_plain(path, 1000) == b"x" * 1000
    with pytest.raises(TooLargeError):
        read_plain(path, 999)


def test_no_descriptor_is_left_open(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    open_now = Path("/proc/self/fd")
    before = len(list(open_now.iterdir()))
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/null"), tmp_path / "gone"):
        with pytest.raises(OSError):
            open_plain(path)
    assert len(list(open_now.iterdir())) == before


# --- in a shot ---------------------------------------------------------------------------------------------------


def test_frames_that_are_bombs_or_lead_to_devices_fail_and_the_others_are_colored(tmp_path):
    shot = draw_shot(tmp_path / "walk")
    png(shot / "walk.0002.png", 60000, 60000)
    (shot / "walk.0003.png").unlink()
    (shot / "walk.0003.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    (shot / "walk.0005.png").symlink_to(tmp_path / "pipe")
    outcome = color(shot)
    assert outcome.result.exit_code == 7
    assert list(outcome.pictures()) == ["walk.0001.png", "walk.0004.png"]
    assert [record.error.message for record in outcome.result.failed if record.error] == [
        "walk.0002.png is 60000x60000: 3600 million pixels, more than the 100 million that are read",
        "walk.0003.png cannot be read: it is a device, not a file",
        "walk.0005.png cannot be read: it is a pipe, not a file",
    ]


def test_a_limit_that_the_user_raises_or_lowers_holds_for_frames_keys_and_masks(tmp_path):
    shot = draw_shot(tmp_path / "walk")   # of 96x64
    assert color(shot, max_pixels=6144).result.exit_code == 0
    with pytest.raises(KeyImageError, match=r"the key cannot be read: key\.png is 96x64"):
        color(shot, max_pixels=6143)
    draw(shot / "walk.0002.png", 2, size=(97, 64))
    assert color(shot, max_pixels=6144).result.totals.failed == 1
    for number in (1, 3, 4):
        draw(tmp_path / "masks" / f"walk.{number:04d}.png", number, size=(200, 64))
    outcome = color(shot, max_pixels=6144, masks=(tmp_path / "masks",))
    assert "walk.0001.png is 200x64" in outcome.result.failed[0].error.message


def test_the_limit_is_no_part_of_how_a_frame_looks(tmp_path):
    shot = draw_shot(tmp_path / "walk")
    color(shot)
    assert color(shot, max_pixels=10_000).result.totals.skipped == 4


@pytest.mark.parametrize(("text", "count"), [("150M", 150_000_000), ("1m", 1_000_000), (" 7 ", 7)])
def test_the_option_reads_counts_and_millions(text, count):
    assert parse_pixels(text) == count


@pytest.mark.parametrize("text", ["", "0", "0M", "-1", "1e9", "1.5M", "M", "100G", "9" * 5000, "١٠"])
def test_the_option_refuses_what_is_no_count(text):
    with pytest.raises(UsageError, match="--max-pixels"):
        parse_pixels(text)


def test_the_default_of_the_option_is_that_of_the_reader():
    assert parse_pixels(options.MAX_PIXELS) == MAX_PIXELS


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (4, 1)])
def test_a_frame_of_an_odd_shape_is_a_picture_like_others(tmp_path, size):
    shot = draw_shot(tmp_path / "walk", (1, 2))
    odd = np.zeros((size[1], size[0], 3), np.float32)
    write_picture(shot / "walk.0002.png", odd, None, PixelFormat("png", "uint8"))
    outcome = color(shot)
    assert outcome.result.exit_code == 0
    assert read_size(outcome.plans[0].out / "walk.0002.png") == size
