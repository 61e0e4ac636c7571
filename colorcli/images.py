"""Pictures of any depth in and out: color straight and sRGB-encoded, alpha beside it, each file whole or not there."""

import contextlib
import hashlib
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Literal

import cv2
import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray

from colorcli.errors import FrameError
from colorcli.files import open_plain
from colorcli.whole_file import whole_file

Container = Literal["png", "tiff", "tga", "jpeg", "exr"]
Depth = Literal["uint8", "uint16", "half", "float"]
Float = NDArray[np.float32]

CONTAINERS: dict[str, Container] = {
    ".png": "png", ".tif": "tiff", ".tiff": "tiff", ".tga": "tga", ".jpg": "jpeg", ".jpeg": "jpeg", ".exr": "exr",
}
EXTENSIONS: dict[Container, str] = {"png": ".png", "tiff": ".tif", "tga": ".tga", "jpeg": ".jpg", "exr": ".exr"}
DEPTHS: dict[str, Depth] = {"uint8": "uint8", "uint16": "uint16", "half": "half", "float": "float"}
READABLE = "expected PNG, TIFF, TGA, JPEG or EXR; save it again from the paint program"
PNG_FILTER_SUB = 0x10   # libpng's number
LONGEST_COMMENT = 65533   # bytes of text in a segment of a JPEG
# Red, green, blue and white of Rec.709, as x and y: an EXR names them, so that a compositor need not guess.
CHROMATICITIES = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
PNG_BEGINS = b"\x89PNG\r\n\x1a\n"

# A picture of a few kilobytes may say that it is gigabytes large: with more pixels than this, none is decoded. A frame
# of 8K has 33 million; a scan of A3 at 600 dpi has 139 million, and whoever has such ones says so.
MAX_PIXELS = 100_000_000
LARGEST_TILE = 4096 * 4096   # pixels of a piece that is decoded as one, however small the picture is
BLOCK_BYTES = 1 << 20

# The marks of a JPEG: its begin, its pixels, those without a length, and those that say the size.
JPEG_BEGINS, JPEG_PIXELS = b"\xff\xd8", b"\xda"
JPEG_BARE = frozenset(bytes([mark]) for mark in (0x00, 0x01, *range(0xD0, 0xD9)))
JPEG_FRAMES = frozenset(bytes([mark]) for mark in range(0xC0, 0xD0) if mark not in (0xC4, 0xC8, 0xCC))

# How the files begin that are read, and which of the library's readers is theirs.
BEGINNINGS = {
    PNG_BEGINS: "png", JPEG_BEGINS: "jpeg", b"II*\0": "tiff", b"MM\0*": "tiff", b"II+\0": "tiff", b"MM\0+": "tiff",
    b"v/1\x01": "openexr",
}
TGA_KINDS, TGA_DEPTHS = (1, 2, 3, 9, 10, 11), (8, 15, 16, 24, 32)


@dataclass(frozen=True)
class PixelFormat:
    """How the pixels lie in a file."""

    container: Container
    depth: Depth


@dataclass(frozen=True)
class Picture:
    """A decoded picture."""

    color: Float            # (H, W, 3) RGB in 0..1, sRGB-encoded, not multiplied by alpha
    alpha: Float | None     # (H, W) in 0..1
    format: PixelFormat
    channels: int           # of the file: 1, 2 (gray and alpha), 3, 4

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.color.shape[1], self.color.shape[0]


FORMATS: dict[str, PixelFormat] = {
    "png8": PixelFormat("png", "uint8"),
    "png16": PixelFormat("png", "uint16"),
    "tiff8": PixelFormat("tiff", "uint8"),
    "tiff16": PixelFormat("tiff", "uint16"),
    "tga": PixelFormat("tga", "uint8"),
    "jpeg": PixelFormat("jpeg", "uint8"),
    "exr-half": PixelFormat("exr", "half"),
    "exr-float": PixelFormat("exr", "float"),
}


def format_named(name: str, source: PixelFormat) -> PixelFormat:
    """Give the format a preset calls `name`; "same" is `source`. Raises KeyError for a name that is none."""
    return source if name == "same" else FORMATS[name]


def extension_of(pixel_format: PixelFormat) -> str:
    """Give the usual file extension, with its dot."""
    return EXTENSIONS[pixel_format.container]


# --- reading -----------------------------------------------------------------------------------------------------


def read_picture(path: Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture of any kind; alpha is taken off the color, EXR goes from linear to sRGB-encoded and is cut at 1.

    What is no number in an EXR is 0. Raises FrameError if the file is missing, may not be read, is empty, is no
    picture, ends too early, or has more than `max_pixels` (nothing is decoded then).
    """
    with _opened(path, max_pixels) as source:
        spec = source.spec()
        pixels = source.read_image(0, 0, 0, min(spec.nchannels, _wanted(spec)), oiio.UNKNOWN)
        problem = _words_of(source)
        if pixels is None or problem:
            raise FrameError(
                f"{path.name} is damaged: {problem or 'its pixels cannot be decoded'}",
                hint="the file is probably cut off: save or copy it again",
            )
        pixels = _on_display_window(np.asarray(pixels).reshape(spec.height, spec.width, -1), spec)
        depth = _depth(path, spec)
        has_alpha = pixels.shape[2] in (2, 4)
        # OpenImageIO names the alpha of every file that is not straight; a TIFF or TGA can be either.
        premultiplied = has_alpha and not spec.get_int_attribute("oiio:UnassociatedAlpha", 0)
        is_linear = source.format_name() == "openexr"   # whatever its name says
        container = CONTAINERS.get(path.suffix.lower()) or CONTAINERS.get("." + source.format_name(), "png")
    color, alpha = _split(pixels)
    if premultiplied and alpha is not None:
        # More color than alpha is nothing that there is, but it can be written.
        color = _unmultiplied(color, alpha)
        color = color if depth in ("half", "float") else np.clip(color, 0, 1)
    if is_linear:
        color = encode_srgb(color)
    if depth in ("half", "float"):
        color = np.clip(np.nan_to_num(color), 0, 1)
        alpha = None if alpha is None else np.clip(np.nan_to_num(alpha), 0, 1)
    orientation = spec.get_int_attribute("Orientation", 1)
    if orientation > 1:
        color = _upright(color, orientation)
        alpha = None if alpha is None else _upright(alpha, orientation)
    return Picture(color, alpha, PixelFormat(container, depth), pixels.shape[2])


def read_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Read only the header and give (width, height). Raises FrameError as `read_picture` does."""
    with _opened(path, max_pixels, only_header=True) as source:
        spec = source.spec()
        size = (spec.full_width or spec.width, spec.full_height or spec.height)
        return size[::-1] if spec.get_int_attribute("Orientation", 1) >= 5 else size


def over_paper(picture: Picture) -> Float:
    """Lay the picture over white paper: (H, W, 3) in 0..1."""
    if picture.alpha is None:
        return picture.color
    result: Float = cv2.multiply(picture.color - 1, cv2.merge([picture.alpha] * 3)) + np.float32(1)
    return result


def picture_digest(picture: Picture) -> str:
    """Give the SHA-256 of the decoded pixels at the file's depth, with size and alpha; metadata does not count."""
    digest = hashlib.sha256(f"{picture.size} {picture.format.depth} {picture.alpha is not None}".encode())
    layers = [picture.color] if picture.alpha is None else [picture.color, picture.alpha]
    for layer in layers:
        digest.update(np.ascontiguousarray(_quantized(layer, picture.format.depth)).data)
    return digest.hexdigest()


@contextlib.contextmanager
def _opened(path: Path, max_pixels: int, only_header: bool = False) -> Iterator[Any]:
    try:
        with open_plain(path) as stream:
            begin = stream.read(18)
            stream.seek(0)
            fault = _png_fault(stream, only_header)
            stream.seek(0)
            size = _jpeg_size(stream)
    except FileNotFoundError:
        raise FrameError(f"{path.name} is missing", hint=f"look for it in {path.parent}") from None
    except PermissionError:
        raise FrameError(f"{path.name} may not be read", hint=f"give read permission: chmod +r {path}") from None
    except OSError as problem:
        raise FrameError(
            f"{path.name} cannot be read: {problem.strerror}", hint="check the file and the disk it is on"
        ) from None
    if not begin:
        raise FrameError(f"{path.name} is empty (0 bytes)", hint="save or copy it again; the last copy did not finish")
    if fault:
        raise FrameError(f"{path.name} is damaged: {fault}", hint="save or copy it again")
    reader = _reader_for(begin)
    if reader is None:
        raise FrameError(f"{path.name} is no picture that can be read", hint=READABLE)
    if size is not None:
        # Opening a progressive JPEG decodes it as a whole: 15 GB for a file of some hundred bytes.
        _refuse_size(path, size, max_pixels)
    wish = oiio.ImageSpec()
    wish.attribute("oiio:UnassociatedAlpha", 1)
    source = oiio.ImageInput.open(str(path), wish)
    if source is None:
        reason = _words_of(oiio)
        raise FrameError(
            f"{path.name} is no picture that can be read" + (f": {reason}" if reason else ""), hint=READABLE
        )
    try:
        # What its reader refuses, the library gives to all of its others. Nothing is decoded by one of those.
        if source.format_name() != reader:
            raise FrameError(f"{path.name} is no picture that can be read", hint=READABLE)
        _refuse_bombs(path, source.spec(), max_pixels)
        yield source
    finally:
        source.close()


def _refuse_bombs(path: Path, spec: Any, max_pixels: int) -> None:
    """Raise FrameError for what would take more memory than a picture may, by what the header says."""
    # An EXR has two sizes: of the pixels that are in the file, and of the frame that they lie in.
    sizes = (spec.width, spec.height), (spec.full_width, spec.full_height)
    _refuse_size(path, max(sizes, key=math.prod), max_pixels)
    if spec.deep or max(spec.depth, spec.full_depth) > 1:
        raise FrameError(f"{path.name} holds more than a flat picture", hint="save it again as a flat picture")
    if spec.tile_width * spec.tile_height > max(LARGEST_TILE, *map(math.prod, sizes)):
        raise FrameError(
            f"{path.name} is made of tiles of {spec.tile_width}x{spec.tile_height}", hint="save it again, without tiles"
        )


def _refuse_size(path: Path, size: tuple[int, int], max_pixels: int) -> None:
    """Raise FrameError for a picture of too many pixels."""
    pixels = math.prod(size)
    if pixels > max_pixels:
        raise FrameError(
            f"{path.name} is {size[0]}x{size[1]}: {in_millions(pixels)} pixels, more than the "
            f"{in_millions(max_pixels)} that are read",
            hint=f"if it really is that large: --max-pixels {math.ceil(pixels / 1e6)}M",
        )


def in_millions(pixels: int) -> str:
    """A count of pixels for people: "150 million"."""
    return f"{pixels / 1e6:.3g} million" if pixels < 1e9 else f"{pixels / 1e6:.0f} million"


def _jpeg_size(stream: BinaryIO) -> tuple[int, int] | None:
    """Give the width and height that a JPEG says it has; None: it is none, or it ends before that."""
    if stream.read(2) != JPEG_BEGINS:
        return None
    while True:
        while (mark := stream.read(1)) not in (b"\xff", b""):
            pass   # between the pieces lies what nobody reads
        while mark == b"\xff":
            mark = stream.read(1)
        if mark in (b"", JPEG_PIXELS):
            return None
        if mark in JPEG_BARE:
            continue
        piece = stream.read(max(int.from_bytes(stream.read(2), "big") - 2, 0))
        if mark in JPEG_FRAMES:
            return int.from_bytes(piece[3:5], "big"), int.from_bytes(piece[1:3], "big")


def _reader_for(begin: bytes) -> str | None:
    """Which reader of the library a file is for, by its first 18 bytes; None: it is no picture that is read."""
    for mark, reader in BEGINNINGS.items():
        if begin.startswith(mark):
            return reader
    # A TGA has no mark of its own.
    is_tga = len(begin) == 18 and begin[1] in (0, 1) and begin[2] in TGA_KINDS and begin[16] in TGA_DEPTHS
    return "targa" if is_tga else None


def _png_fault(stream: BinaryIO, only_header: bool) -> str | None:
    """Say what is wrong with the pieces of a PNG, or with those before its pixels, by their lengths and sums.

    The library that decodes it finds the same, but says so on stderr by itself, among the lines that a farm reads.
    """
    if stream.read(len(PNG_BEGINS)) != PNG_BEGINS:
        return None
    kind, has_pixels = b"", False
    while kind != b"IEND":
        head = stream.read(8)
        kind, has_pixels = head[4:], has_pixels or kind == b"IDAT"
        # Many programs leave the last piece out, and nobody misses it.
        if (not head and has_pixels) or (only_header and kind == b"IDAT"):
            return None
        # In blocks: a piece says its length itself, and that may be 4 GB.
        left, checked = int.from_bytes(head[:4], "big"), zlib.crc32(kind)
        while left and (block := stream.read(min(left, BLOCK_BYTES))):
            left, checked = left - len(block), zlib.crc32(block, checked)
        checksum = stream.read(4)
        if left or len(checksum) < 4:
            return "it ends too early"
        needed = kind[:1].isupper()   # for the pixels
        if needed and checked != int.from_bytes(checksum, "big"):
            return "it has bytes that were not saved so"
    return None


def _wanted(spec: Any) -> int:
    """Give how many leading channels are color and alpha: EXR files often carry depth and ids behind them."""
    try:
        names = [name.rsplit(".")[-1].upper() for name in spec.channelnames]
    except UnicodeDecodeError:
        names = [""] * spec.nchannels
    if names[:4] == ["R", "G", "B", "A"]:
        return 4
    if names[:3] == ["R", "G", "B"]:
        return 3
    if names[:2] == ["Y", "A"]:
        return 2
    return 4 if len(names) >= 4 else 3 if len(names) == 3 else len(names)


def _on_display_window(pixels: NDArray[Any], spec: Any) -> NDArray[Any]:
    """Place the pixels a file holds into the whole frame; an EXR may hold only the rectangle that is not empty."""
    width, height = spec.full_width or spec.width, spec.full_height or spec.height
    left, top = spec.x - spec.full_x, spec.y - spec.full_y
    if (left, top, spec.width, spec.height) == (0, 0, width, height):
        return pixels
    frame = np.zeros((height, width, pixels.shape[2]), pixels.dtype)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + spec.width, width), min(top + spec.height, height)
    if x1 > x0 and y1 > y0:
        frame[y0:y1, x0:x1] = pixels[y0 - top : y1 - top, x0 - left : x1 - left]
    return frame


def _depth(path: Path, spec: Any) -> Depth:
    name = str(spec.format)
    if name not in DEPTHS and name != "double":
        raise FrameError(f"{path.name} holds pixels of type {name}", hint="save it again with 8 or 16 bits, or as EXR")
    return DEPTHS.get(name, "float")


def _split(pixels: NDArray[Any]) -> tuple[Float, Float | None]:
    channels = pixels.shape[2]
    if pixels.dtype not in (np.uint8, np.uint16):
        with np.errstate(over="ignore", invalid="ignore"):   # of doubles; they are cut below
            pixels = pixels.astype(np.float32)
    alpha = pixels[:, :, channels - 1] if channels in (2, 4) else None
    if channels <= 2:
        color = cv2.cvtColor(np.ascontiguousarray(pixels[:, :, 0]), cv2.COLOR_GRAY2RGB)
    elif channels == 4:
        color = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGBA2RGB)
    else:
        color = np.ascontiguousarray(pixels)
    return _to_unit(color), None if alpha is None else _to_unit(alpha)


def _to_unit(values: NDArray[Any]) -> Float:
    if values.dtype == np.uint8:
        return (np.arange(256, dtype=np.float32) / np.float32(255))[values]
    if values.dtype == np.uint16:
        return np.divide(values, np.float32(65535), dtype=np.float32)
    return values.astype(np.float32)


def _unmultiplied(color: Float, alpha: Float) -> Float:
    # Where nothing is left of a pixel its color is unknown; zero keeps it what the file says.
    with np.errstate(over="ignore", invalid="ignore"):   # of an alpha of nearly nothing, and of infinite light
        scale = np.divide(1, alpha, out=np.zeros_like(alpha), where=alpha > 0)
        result: Float = color * scale[:, :, None]
    return result


def _upright(image: Float, orientation: int) -> Float:
    """Turn a camera or scanner picture as its EXIF orientation (2..8) says."""
    flipped = {2: image[:, ::-1], 3: image[::-1, ::-1], 4: image[::-1]}
    turned = {5: image, 6: image[::-1], 7: image[::-1, ::-1], 8: image[:, ::-1]}
    if orientation in flipped:
        return np.ascontiguousarray(flipped[orientation])
    return np.ascontiguousarray(np.swapaxes(turned[orientation], 0, 1)) if orientation in turned else image


def _words_of(library: Any) -> str:
    """What OpenImageIO says that went wrong, its first line; empty if nothing did."""
    try:
        message = str(library.geterror())
    except UnicodeDecodeError as failure:   # it quotes the damaged file
        message = failure.object.decode(errors="replace")
    return message.strip().splitlines()[0] if message.strip() else ""


# --- the sRGB curve ----------------------------------------------------------------------------------------------


def encode_srgb(linear: Float) -> Float:
    """Linear light to sRGB-encoded values, IEC 61966-2-1; values outside 0..1 are cut."""
    x = np.clip(np.nan_to_num(linear), 0, 1)
    return np.where(x <= 0.0031308, x * 12.92, 1.055 * np.power(x, 1 / 2.4) - 0.055).astype(np.float32)


def decode_srgb(encoded: Float) -> Float:
    """sRGB-encoded values to linear light, IEC 61966-2-1."""
    return np.where(encoded <= 0.04045, encoded / 12.92, np.power((encoded + 0.055) / 1.055, 2.4)).astype(np.float32)


# --- writing -----------------------------------------------------------------------------------------------------


def write_picture(
    path: Path,
    color: Float,
    alpha: Float | None,
    pixel_format: PixelFormat,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write a picture whole or not at all: to a temporary name in the same folder, to disk, then renamed.

    color: (H, W, 3) or (H, W) gray, 0..1, sRGB-encoded, straight. alpha: (H, W) or None. JPEG has no alpha: the color
    is laid over white. EXR is written linear and multiplied by alpha. notes: texts that go into the file by name: PNG
    text, EXR attributes, the description of a TIFF, the comment of a JPEG; a TGA holds none.
    Raises OutputError if the folder is missing, read-only or full.
    """
    depth = _writable_depth(pixel_format)
    assert alpha is None or alpha.shape == color.shape[:2], (alpha.shape if alpha is not None else None, color.shape)
    if pixel_format.container == "jpeg" and alpha is not None:
        paper = alpha if color.ndim == 2 else alpha[:, :, None]
        color, alpha = (color - 1) * paper + 1, None
    if pixel_format.container == "exr":
        color = decode_srgb(np.clip(color, 0, 1))
        if alpha is not None:
            color = color * (alpha if color.ndim == 2 else alpha[:, :, None])
    if pixel_format.container == "tga" and color.ndim == 2 and alpha is not None:
        color = np.repeat(color[:, :, None], 3, axis=2)  # a TGA reader takes two channels for something else
    pixels = _with_alpha(_quantized(color, depth), None if alpha is None else _quantized(alpha, depth))
    with whole_file(path) as temporary:
        if pixel_format.container == "jpeg":
            _write_jpeg(temporary, pixels, notes)
        else:
            _write_pixels(temporary, pixels, pixel_format.container, depth, notes)


def _writable_depth(pixel_format: PixelFormat) -> Depth:
    """Give the depth the container can hold that is nearest to the one asked for."""
    possible: dict[Container, dict[Depth, Depth]] = {
        "png": {"half": "uint16", "float": "uint16"},
        "tiff": {"half": "float"},
        "tga": {"uint16": "uint8", "half": "uint8", "float": "uint8"},
        "jpeg": {"uint16": "uint8", "half": "uint8", "float": "uint8"},
        "exr": {"uint8": "half", "uint16": "half"},
    }
    return possible[pixel_format.container].get(pixel_format.depth, pixel_format.depth)


def _quantized(values: Float, depth: Depth) -> NDArray[Any]:
    """Round 0..1 to the levels of a depth; floating depths only change type."""
    if depth == "uint8":
        # Saturates and rounds in one pass; half-way cases cannot come from 8-bit sources.
        result: NDArray[Any] = cv2.multiply(values, (255.0,) * 4, dtype=cv2.CV_8U)
    elif depth == "uint16":
        result = cv2.multiply(values, (65535.0,) * 4, dtype=cv2.CV_16U)
    else:
        result = values.astype(np.float16 if depth == "half" else np.float32)
    return result


def _with_alpha(color: NDArray[Any], alpha: NDArray[Any] | None) -> NDArray[Any]:
    color = np.ascontiguousarray(color if color.ndim == 3 else color[:, :, None])
    return color if alpha is None else np.ascontiguousarray(np.dstack([color, alpha]))


def _write_pixels(
    path: Path, pixels: NDArray[Any], container: Container, depth: Depth, notes: Mapping[str, str]
) -> None:
    height, width, channels = pixels.shape
    spec = oiio.ImageSpec(width, height, channels, depth)
    spec.channelnames = {1: ("Y",), 2: ("Y", "A"), 3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}[channels]
    spec.alpha_channel = channels - 1 if channels in (2, 4) else -1
    spec.attribute("Software", notes.get("Software", "colorcli"))
    if container == "tiff" and notes:
        spec.attribute("ImageDescription", _in_lines(notes))
    elif container in ("png", "exr"):
        for name, text in notes.items():
            spec.attribute(name, text)
    # No time of writing, which EXR and TIFF files get else: a frame has the same bytes whenever it is colored.
    spec.attribute("DateTime", "")
    if container == "exr":
        spec.attribute("compression", "zip")
        spec.attribute("oiio:ColorSpace", "lin_rec709_scene")
        spec.attribute("chromaticities", "float[8]", CHROMATICITIES)
    else:
        spec.attribute("oiio:UnassociatedAlpha", 1)
        spec.attribute("oiio:ColorSpace", "srgb_rec709_scene")
    if container == "png":
        # Differences to the left and runs of equal ones: a third of the time that the library's own choice takes, which
        # tries five filters on every row, and no larger for drawn or noisy color (`python -m benchmarks.encoding`).
        spec.attribute("png:filter", PNG_FILTER_SUB)
        spec.attribute("compression", "rle")
    if container == "tiff":
        spec.attribute("compression", "zip")
    output = oiio.ImageOutput.create({"tiff": "tiff", "tga": "targa", "exr": "openexr"}.get(container, container))
    assert output is not None, container
    done = output.open(str(path), spec) and output.write_image(pixels)
    done = output.close() and done
    # A full disk is reported by the error text alone: PNG and TIFF still answer that all went well.
    problem = _words_of(output)
    if problem or not done:
        raise OSError(problem or "the file could not be written")


def _in_lines(notes: Mapping[str, str]) -> str:
    return "\n".join(f"{name}: {text}" for name, text in notes.items())


def _write_jpeg(path: Path, pixels: NDArray[Any], notes: Mapping[str, str]) -> None:
    # Encoded in memory: libjpeg ends the whole process when the disk is full.
    ordered = pixels if pixels.shape[2] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    done, encoded = cv2.imencode(".jpg", ordered, [cv2.IMWRITE_JPEG_QUALITY, 97, *sampling])
    assert done, pixels.shape
    data, comment = encoded.tobytes(), _in_lines(notes).encode()[:LONGEST_COMMENT]
    if comment:
        # A comment segment right behind the mark that begins the file.
        data = data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]
    path.write_bytes(data)
