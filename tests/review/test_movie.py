"""Movies of a review, read by other decoders than the one that wrote them where there is one."""

import json
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from colorcli.errors import MissingExtraError, ShotError
from colorcli.images import write_picture
from colorcli.review.movie import write_movie
from colorcli.review.pictures import Album
from colorcli.review.reviewed import ReviewedShot, review_shot
from tests.review.studio import BLUE, GREEN, PNG8, RED, colored_shot

av = pytest.importorskip("av", reason="movies need PyAV (extra review)")

FILLS = (RED, BLUE, GREEN)


@pytest.fixture(scope="module")
def shot(tmp_path_factory: pytest.TempPathFactory) -> ReviewedShot:
    """Four frames on twos; the third cannot be read."""
    folder = tmp_path_factory.mktemp("movie")
    out = colored_shot(folder, [*FILLS, RED], numbers=[1, 3, 5, 7])
    (out / "sc.0005.png").unlink()
    return review_shot(out, Album())


def frames_of(path: Path) -> list[np.ndarray]:
    """The frames of a movie as OpenCV decodes them, RGB 8 bit."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        there, frame = capture.read()
        if not there:
            return frames
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))


def levels(fill: tuple[float, float, float]) -> list[float]:
    return [255 * channel for channel in fill]


@pytest.mark.parametrize(("name", "near"), [("walk.mp4", 4.0), ("walk.mov", 2.0)])
def test_a_movie_shows_each_drawing_as_long_as_the_shot_does_in_its_color(
    shot: ReviewedShot, tmp_path: Path, name: str, near: float
) -> None:
    write_movie(tmp_path / name, [shot], rate=24)
    frames = frames_of(tmp_path / name)
    assert len(frames) == 8   # four drawings on twos
    assert frames[0].shape == (64, 96, 3)
    for place, fill in ((0, RED), (1, RED), (2, BLUE), (3, BLUE), (6, RED)):
        assert np.abs(frames[place][30, 40] - levels(fill)).max() <= near
    assert np.abs(frames[4][2, 2] - 255 * 0.25).max() <= near   # the card of the frame that is not there


@pytest.mark.parametrize(
    ("name", "codec", "pixels"), [("a.mp4", "h264", "yuv420p"), ("a.mov", "prores", "yuv444p")]
)
def test_a_movie_says_what_its_numbers_mean(
    shot: ReviewedShot, tmp_path: Path, name: str, codec: str, pixels: str
) -> None:
    write_movie(tmp_path / name, [shot], rate=23.976)
    with av.open(str(tmp_path / name)) as movie:
        stream = movie.streams.video[0]
        assert stream.codec_context.name == codec
        assert stream.codec_context.pix_fmt.startswith(pixels)   # a decoder may give 10 bits as 12
        assert (stream.average_rate.numerator, stream.average_rate.denominator) == (24000, 1001)
        context = stream.codec_context
        assert (int(context.color_primaries), int(context.color_trc), int(context.colorspace)) == (1, 1, 1)   # Rec.709
        if codec == "prores":
            assert stream.codec_context.codec_tag == "ap4h"   # 4444


def test_every_picture_of_a_prores_movie_says_what_its_numbers_mean(shot: ReviewedShot, tmp_path: Path) -> None:
    write_movie(tmp_path / "a.mov", [shot], rate=24)
    pictures = (tmp_path / "a.mov").read_bytes().split(b"icpf")[1:]
    # SMPTE RDD 36: size, version, encoder, width, height, flags and rate lie before primaries, transfer and matrix.
    assert [tuple(header[14:17]) for header in pictures] == [(1, 1, 1)] * 8   # Rec.709


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_ffprobe_counts_the_frames_and_knows_rate_and_color(shot: ReviewedShot, tmp_path: Path, name: str) -> None:
    if shutil.which("ffprobe") is None:
        pytest.skip("needs ffprobe: apt-get install ffmpeg")
    write_movie(tmp_path / name, [shot], rate=23.976)
    asked = ("avg_frame_rate", "nb_read_frames", "color_range", "color_space", "color_transfer", "color_primaries")
    words = ("-v", "error", "-count_frames", "-show_entries", f"stream={','.join(asked)}", "-of", "json")
    told = subprocess.run(["ffprobe", *words, tmp_path / name], capture_output=True, check=True, timeout=60).stdout
    (stream,) = json.loads(told)["streams"]
    assert [stream[word] for word in asked] == ["24000/1001", "8", "tv", "bt709", "bt709", "bt709"]


def test_an_older_pyav_is_refused_before_anything_is_written(
    shot: ReviewedShot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(av, "__version__", "16.1.0")
    with pytest.raises(MissingExtraError, match=r"needs the Python package av 17, here is 16\.1\.0") as caught:
        write_movie(tmp_path / "a.mov", [shot], rate=24)
    assert "colorcli[review]" in (caught.value.hint or "")
    assert not (tmp_path / "a.mov").exists()


def test_side_by_side_the_drawing_is_on_the_left(shot: ReviewedShot, tmp_path: Path) -> None:
    write_movie(tmp_path / "a.mov", [shot], rate=24, side_by_side=True)
    frame = frames_of(tmp_path / "a.mov")[2]
    assert frame.shape == (64, 192, 3)
    assert frame[30, 10].min() > 250 and np.abs(frame[30, 96 + 40] - levels(BLUE)).max() <= 2


def test_a_movie_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShotError, match="no frame"):
        write_movie(tmp_path / "a.mp4", [], rate=24)
    assert not (tmp_path / "a.mp4").exists()


def test_frames_of_an_odd_size_get_a_line_more(shot: ReviewedShot, tmp_path: Path) -> None:
    fill = np.full((33, 51, 3), 0.5, np.float32)
    write_picture(shot.out / "sc.0001.png", fill, None, PNG8)
    write_movie(tmp_path / "a.mp4", [shot], rate=24)
    assert frames_of(tmp_path / "a.mp4")[0].shape == (34, 52, 3)
