"""The frames of reviewed shots as a movie: H.264 to send around, ProRes 4444 to cut with."""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.errors import ColorcliError, MissingExtraError, ShotError
from colorcli.images import over_paper, read_picture
from colorcli.review.reviewed import ReviewedFrame, ReviewedShot, drawing_of, result_of
from colorcli.whole_file import whole_file

if TYPE_CHECKING:
    import av

Float = NDArray[np.float32]

SLATE = 0.25            # gray of a frame that is not there
QUALITY = "14"          # H.264's constant rate factor: 0 exact .. 51; a flat color shows no blocks here
BT709 = 1               # as ISO/IEC 23091-2 numbers primaries, transfer and matrix of Rec.709
LIMITED_RANGE = 1       # of FFmpeg: black is 16 and white 235, as players expect
OLDEST_AV = 17          # that can say in each picture which color its numbers mean


def require_av() -> None:
    """Raise MissingExtraError if movies cannot be written."""
    hint = "pip install 'colorcli[review]'"
    try:
        import av
    except ImportError:
        raise MissingExtraError("a movie needs the Python package av", hint=hint) from None
    if int(av.__version__.partition(".")[0]) < OLDEST_AV:
        raise MissingExtraError(f"a movie needs the Python package av {OLDEST_AV}, here is {av.__version__}", hint=hint)


def write_movie(path: Path, shots: Sequence[ReviewedShot], *, rate: float, side_by_side: bool = False) -> None:
    """Write the results of some shots, one after the other; the extension chooses H.264 (.mp4) or ProRes (.mov).

    rate: frames a second. A drawing on twos stands for two frames, as the page plays it. side_by_side: the drawings
    stand on the left. All has the size of the first frame; a frame that is not there is a gray card with its name.
    Raises MissingExtraError without PyAV, ShotError without any frame, OutputError if the file cannot be written.
    """
    require_av()
    import av

    frames = [(shot, frame) for shot in shots for frame in shot.frames]
    if not frames:
        raise ShotError("there is no frame to make a movie of", hint="color the shot first")
    size = _size_of(frames, side_by_side)
    with whole_file(path) as temporary, av.open(str(temporary), "w", format=path.suffix[1:].lower()) as container:
        stream = KINDS[path.suffix.lower()](container, exact_rate(rate))
        # 4:2:0 halves both sides.
        stream.width, stream.height = size[0] + size[0] % 2, size[1] + size[1] % 2
        number = 0
        for pixels, ticks in _pictures(frames, size, side_by_side):
            picture = _video_frame(pixels, stream)
            for _ in range(ticks):
                picture.pts = number
                number += 1
                container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def exact_rate(rate: float) -> Fraction:
    """Give the rate that people mean: 23.976 and 29.97 are television's 24000/1001 and 30000/1001."""
    for whole in (24, 30, 48, 60, 120):
        if abs(rate - whole * 1000 / 1001) < 0.005:
            return Fraction(whole * 1000, 1001)
    return Fraction(rate).limit_denominator(1000)


def _h264(container: "av.container.OutputContainer", rate: Fraction) -> Any:
    stream = container.add_stream("libx264", rate=rate)
    stream.pix_fmt = "yuv420p"
    stream.options = {"crf": QUALITY, "preset": "medium", "tune": "animation", "movflags": "+faststart"}
    return _tagged(stream)


def _prores(container: "av.container.OutputContainer", rate: Fraction) -> Any:
    stream = container.add_stream("prores_ks", rate=rate)
    stream.pix_fmt = "yuv444p10le"
    stream.options = {"profile": "4444", "vendor": "apl0"}
    return _tagged(stream)


KINDS: dict[str, Callable[["av.container.OutputContainer", Fraction], Any]] = {".mp4": _h264, ".mov": _prores}


def _tagged(stream: Any) -> Any:
    """Say which color the numbers mean: without it players guess by the height of the picture."""
    codec = stream.codec_context
    codec.color_primaries = codec.color_trc = codec.colorspace = BT709
    codec.color_range = LIMITED_RANGE
    return stream


def _video_frame(pixels: Float, stream: Any) -> Any:
    """Turn a picture (H, W, 3) in 0..1 into what the stream takes."""
    import av

    across, down = stream.width - pixels.shape[1], stream.height - pixels.shape[0]
    padded = np.pad(pixels, ((0, down), (0, across), (0, 0)), mode="edge") if across or down else pixels
    levels = np.ascontiguousarray(np.rint(np.clip(padded, 0, 1) * 65535).astype(np.uint16))
    frame = av.VideoFrame.from_ndarray(levels, format="rgb48le")
    picture = frame.reformat(
        format=stream.pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG", interpolation="LANCZOS"
    )
    # ProRes says it in every picture, too, and some players believe that rather than the file.
    picture.color_primaries = picture.color_trc = BT709
    return picture


def _pictures(
    frames: Sequence[tuple[ReviewedShot, ReviewedFrame]], size: tuple[int, int], side_by_side: bool
) -> Iterator[tuple[Float, int]]:
    """Give each frame as it is shown, (H, W, 3) in 0..1, and for how many frames of the movie."""
    for shot, frame in frames:
        shown = _read(result_of(shot, frame)) if frame.after is not None else None
        name = f"{frame.record.frame}: {'failed' if frame.record.status == 'failed' else 'no picture'}"
        if side_by_side:
            half = (size[0] // 2, size[1])
            drawing = _read(drawing_of(shot, frame)) if frame.before is not None else None
            pair = [_fitted(drawing, half, "no drawing"), _fitted(shown, (size[0] - half[0], size[1]), name)]
            yield np.concatenate(pair, axis=1), frame.ticks
        else:
            yield _fitted(shown, size, name), frame.ticks


def _size_of(frames: Sequence[tuple[ReviewedShot, ReviewedFrame]], side_by_side: bool) -> tuple[int, int]:
    """Give the size of the first frame that is there, (width, height); of a movie without any, a small one."""
    for shot, frame in frames:
        picture = _read(result_of(shot, frame)) if frame.after is not None else None
        if picture is not None:
            return picture.shape[1] * (2 if side_by_side else 1), picture.shape[0]
    return 640, 360


def _read(path: Path) -> Float | None:
    """A picture over white paper; None if it cannot be read any more."""
    try:
        return over_paper(read_picture(path))
    except ColorcliError:
        return None


def _fitted(picture: Float | None, size: tuple[int, int], name: str) -> Float:
    """Bring a picture to the movie's size, with gray beside it where its shape is another; None: a card."""
    width, height = size
    card = np.full((height, width, 3), SLATE, np.float32)
    if picture is None:
        letters = max(0.4, width / 1200)
        place = (round(width * 0.05), height // 2)
        white = np.zeros((height, width), np.uint8)   # OpenCV writes into 8 bit only
        cv2.putText(white, _plain(name), place, cv2.FONT_HERSHEY_SIMPLEX, letters, 255, 1, cv2.LINE_AA)
        return np.maximum(card, (white / np.float32(255))[:, :, None])
    if picture.shape[:2] == (height, width):
        return picture
    scale = min(width / picture.shape[1], height / picture.shape[0])
    inner = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    card[top : top + inner[1], left : left + inner[0]] = small
    return card


def _plain(name: str) -> str:
    """A name in the letters that OpenCV can draw."""
    return name.encode("ascii", "replace").decode()
