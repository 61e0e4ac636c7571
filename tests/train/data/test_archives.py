"""Pictures are found in archives and in folders, and whatever is wrong with one of them is said in a sentence."""

import io
import pickle
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colorcli.errors import FrameError, OutputError
from colorcli.train.data.archives import PictureStore, png_bytes, write_archives
from tests.train.picture_sets import color_of, layers, write_set


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_set(tmp_path, [(20, 10)] * 6, archives=3, indexed=False)
    return tmp_path


def repack(path: Path, name: str, data: bytes) -> None:
    """Put other bytes under a name in an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in {**members, name: data}.items():
            archive.writestr(member, content)


def test_a_picture_is_read_from_the_archive_its_path_names(root: Path) -> None:
    store = PictureStore(root)
    for number in range(6):
        picture = store.color(f"{number % 3:05d}/{number:03d}.png")
        assert picture.size == (20, 10) and picture.getpixel((3, 3)) == color_of(number)
    assert store.gray("00000/000.png").getpixel((0, 0)) == 255
    assert store.size("00001/001.png") == (20, 10)


def test_only_some_archives_stay_open(root: Path) -> None:
    store = PictureStore(root, open_archives=2)
    assert store.opened == 0
    for number in [0, 1, 2, 0, 1, 2]:
        store.color(f"{number:05d}/{number:03d}.png")
        assert store.opened <= 2
    store.close()
    assert store.opened == 0


def test_threads_read_from_archives_that_are_closed_and_opened_again_meanwhile(root: Path) -> None:
    store = PictureStore(root, open_archives=1)
    numbers = list(range(6)) * 20
    with ThreadPoolExecutor(4) as threads:
        colors = list(threads.map(lambda n: store.color(f"{n % 3:05d}/{n:03d}.png").getpixel((0, 0)), numbers))
    assert colors == [color_of(number) for number in numbers]


def test_a_store_goes_to_another_process_without_its_open_files(root: Path) -> None:
    store = PictureStore(root, open_archives=5)
    store.color("00000/000.png")
    copy = pickle.loads(pickle.dumps(store))
    assert copy.opened == 0 and copy.color("00000/000.png").size == (20, 10)


def test_plain_folders_do_as_well_and_the_sketch_may_be_of_another_kind_of_file(tmp_path: Path) -> None:
    for kind in ("color", "sketch"):
        (tmp_path / kind / "a").mkdir(parents=True)
    Image.new("RGB", (6, 4), (255, 0, 0)).save(tmp_path / "color" / "a" / "1.bmp")
    Image.new("L", (6, 4), 9).save(tmp_path / "sketch" / "a" / "1.png")
    store = PictureStore(tmp_path)
    assert store.color("a/1.bmp").getpixel((0, 0)) == (255, 0, 0)
    assert store.gray("a/1.bmp", "sketch").getpixel((0, 0)) == 9
    assert store.archives("sketch") == ["a"] and store.members("sketch", "a") == ["a/1.png"]


def test_what_is_transparent_is_paper(tmp_path: Path) -> None:
    (tmp_path / "color").mkdir()
    picture = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    picture.save(tmp_path / "color" / "1.png")
    read = PictureStore(tmp_path).color("1.png")
    assert [read.getpixel((x, 0)) for x in range(2)] == [(10, 20, 30), (255, 255, 255)]


def test_sixteen_bit_gray_keeps_its_brightness(tmp_path: Path) -> None:
    (tmp_path / "mask").mkdir()
    Image.fromarray(np.full((2, 2), 32896, np.uint16)).save(tmp_path / "mask" / "1.png")   # 128 of 255
    assert PictureStore(tmp_path).gray("1.png").getpixel((0, 0)) == 128


def test_an_archive_cut_off_is_named_each_time_and_the_others_are_read(root: Path) -> None:
    broken = root / "color" / "00001.zip"
    broken.write_bytes(broken.read_bytes()[:-40])
    store = PictureStore(root)
    for _ in range(2):
        with pytest.raises(FrameError, match=r"color/00001.zip is no whole zip archive"):
            store.color("00001/001.png")
    assert store.color("00000/000.png").size == (20, 10)


def test_a_flipped_bit_is_found_by_the_checksum(root: Path) -> None:
    archive = root / "mask" / "00000.zip"
    data = bytearray(archive.read_bytes())
    data[data.find(b"IDAT") + 6] ^= 1
    archive.write_bytes(bytes(data))
    with pytest.raises(FrameError, match=r"mask/00000/000.png is damaged in its archive"):
        PictureStore(root).gray("00000/000.png")


def test_a_truncated_png_is_not_taken_for_a_picture(root: Path) -> None:
    rng = np.random.default_rng(0)
    whole = png_bytes(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    repack(root / "color" / "00000.zip", "00000/000.png", whole[: len(whole) // 2])
    with pytest.raises(FrameError, match=r"color/00000/000.png cannot be decoded"):
        PictureStore(root).color("00000/000.png")


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "is no picture"), (b"no picture at all", "is no picture"), (b"\x89PNG\r\n\x1a\n" + bytes(30), "")],
)
def test_bytes_that_are_no_picture_are_refused(root: Path, data: bytes, reason: str) -> None:
    repack(root / "color" / "00000.zip", "00000/000.png", data)
    with pytest.raises(FrameError, match=f"color/00000/000.png {reason}"):
        PictureStore(root).color("00000/000.png")


def test_a_picture_that_would_fill_the_memory_is_refused_by_its_header(root: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (30_000, 4_000)).save(buffer, "PNG")
    repack(root / "mask" / "00000.zip", "00000/000.png", buffer.getvalue())
    with warnings.catch_warnings(), pytest.raises(FrameError, match=r"30000x4000 pixels, more than 89 million"):
        warnings.simplefilter("ignore")
        PictureStore(root).gray("00000/000.png")


def test_a_missing_member_and_a_missing_archive_are_told_apart(root: Path) -> None:
    store = PictureStore(root)
    with pytest.raises(FrameError, match=r"color/00000.zip has no 00000/999.png"):
        store.color("00000/999.png")
    with pytest.raises(FrameError, match=r"color/77777.zip is missing"):
        store.color("77777/000.png")


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "a/../../b.png", "", "a\\..\\b.png"])
def test_a_path_cannot_lead_out_of_the_set(root: Path, path: str) -> None:
    (root.parent / "secret.png").write_bytes(png_bytes(layers(0, (4, 4))["color"]))
    with pytest.raises(FrameError, match=r"would lie outside"):
        PictureStore(root).color(path)


def test_a_name_with_the_signs_of_patterns_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "color").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "color" / "walk[1].png")
    Image.new("RGB", (3, 3)).save(tmp_path / "color" / "walk1.png")
    assert PictureStore(tmp_path).color("walk[1].jpg").size == (2, 2)


def test_the_same_pictures_make_the_same_archive(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_set(tmp_path / folder, [(8, 8)] * 2, archives=1)
    one, two = ((tmp_path / folder / "color" / "00000.zip").read_bytes() for folder in ("one", "two"))
    assert one == two


def test_a_failure_leaves_the_archives_as_they_were(root: Path) -> None:
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(RuntimeError), write_archives(root, "00000", ("color", "mask")) as writer:
        writer.add("color", "000.png", b"half")
        raise RuntimeError("the power went out")
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_folder_that_is_a_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "color").write_text("no folder")
    with pytest.raises(OutputError) as failure, write_archives(tmp_path, "a", ("color",)):
        pass
    assert "color cannot be made" in failure.value.message and "-o" in (failure.value.hint or "")
