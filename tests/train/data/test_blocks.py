"""Training sets made of frames and of drawings: what is made once stays, what changed is made again."""

import json
import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from colorcli.errors import DataError, FrameError, OutputError, UsageError, WeightsError
from colorcli.train.data.archives import PictureStore
from colorcli.train.data.blocks import Part, SetReport, index_archives, write_blocks
from colorcli.train.data.from_drawings import CharacterBlock, character_blocks
from colorcli.train.data.from_frames import SKETCHERS, FrameOptions, FrameSource, check_options, frame_blocks, prepare
from colorcli.train.data.index import PictureFilter, open_index
from tests.train.picture_sets import write_set

ALL = PictureFilter(min_score=0, min_side=1)
OPTIONS = FrameOptions()


def paint(path: Path, size: tuple[int, int] = (48, 36), alpha: bool = False, shade: int = 200) -> Path:
    """A colored ball with a dark outline on white paper, or on nothing."""
    width, height = size
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = np.full((height, width, 3), 255, np.uint8)
    center, radius = (width // 2, height // 2), min(size) // 3
    cv2.circle(frame, center, radius, (shade, 60, 40), -1)
    cv2.circle(frame, center, radius, (10, 10, 10), 2)
    if alpha:
        cover = np.zeros((height, width), np.uint8)
        cv2.circle(cover, center, radius + 1, 255, -1)
        Image.fromarray(np.dstack([frame, cover])).save(path)
    else:
        Image.fromarray(frame).save(path)
    return path


def make(folder: Path, out: Path, options: FrameOptions = OPTIONS, per_archive: int = 500, **more: Any) -> SetReport:
    return write_blocks(out, frame_blocks(folder, out, options, per_archive), **more)


def paths_of(out: Path) -> set[str]:
    index = open_index(PictureStore(out), ALL)
    return {index.entry(number).path for number in range(len(index))}


@dataclass(frozen=True)
class OneBlock:
    """A block that can be told to fail."""

    block: Any
    fails: bool

    def __getattr__(self, name: str) -> Any:
        return getattr(self.block, name)

    def write(self, root: Path) -> Part:
        if self.fails:
            raise KeyboardInterrupt
        return self.block.write(root)


def test_frames_become_a_set_with_line_art_and_masks(tmp_path: Path) -> None:
    for number in range(3):
        paint(tmp_path / "show" / "sc01" / f"walk.{number:04d}.png")
    report = make(tmp_path / "show", tmp_path / "set")
    assert report.pictures == 3 and report.mask_by == {"colors": 3} and not report.failed
    assert sum(report.sketch_by.values()) == 3 and set(report.sketch_by) <= set(SKETCHERS)
    assert paths_of(tmp_path / "set") == {f"show_sc01/walk.{number:04d}.png" for number in range(3)}
    store = PictureStore(tmp_path / "set")
    color, sketch, mask = (
        np.asarray(picture).astype(int)
        for picture in (store.color("show_sc01/walk.0000.png"), store.gray("show_sc01/walk.0000.png", "sketch"),
                        store.gray("show_sc01/walk.0000.png"))
    )
    assert color.shape == (36, 48, 3) and sketch.shape == mask.shape == (36, 48)
    ball = np.hypot(*(np.mgrid[:36, :48] - np.array([18, 24])[:, None, None]))
    assert (mask[ball < 11] > 200).all() and (mask[ball > 15] < 50).all()
    outline = np.abs(ball - 12) < 0.7
    assert sketch[outline].mean() < 120 and sketch[ball > 17].mean() > 230   # dark on white


@pytest.mark.parametrize("extractor", SKETCHERS)
def test_every_extractor_finds_the_outline_of_a_ball(tmp_path: Path, extractor: str) -> None:
    frame = paint(tmp_path / "ball.png", (240, 180))
    made = prepare(FrameSource(frame), "ball.png", replace(OPTIONS, extractors=(extractor,)))
    assert made.sketch_by == extractor
    ball = np.hypot(*(np.mgrid[:180, :240] - np.array([90, 120])[:, None, None]))
    on, off = made.sketch[np.abs(ball - 60) < 1], made.sketch[np.abs(ball - 60) > 25]
    assert on.mean() < 130 and off.mean() > 240


def test_the_lot_gives_a_picture_the_same_extractor_every_time_and_another_seed_another(tmp_path: Path) -> None:
    frame = paint(tmp_path / "ball.png")
    chosen = [
        [prepare(FrameSource(frame), f"sc01/{n}.png", replace(OPTIONS, seed=seed)).sketch_by for n in range(12)]
        for seed in (0, 0, 1)
    ]
    assert chosen[0] == chosen[1] != chosen[2]
    assert set(chosen[0]) == set(SKETCHERS)


def test_line_art_and_masks_beside_the_colors_are_used_as_they_are(tmp_path: Path) -> None:
    shot = tmp_path / "show" / "sc01"
    paint(shot / "color" / "a.png")
    paint(shot / "color" / "b.png")
    for folder, name, gray in (("line", "a.tif", 90), ("mask", "b.png", 140)):
        (shot / folder).mkdir()
        Image.new("L", (48, 36), gray).save(shot / folder / name)
    (tmp_path / "show" / "key.png").write_bytes((shot / "color" / "a.png").read_bytes())
    report = make(tmp_path / "show", tmp_path / "set")
    assert report.pictures == 2 and report.sketch_by["given"] == 1
    assert report.mask_by == {"given": 1, "colors": 1}
    store = PictureStore(tmp_path / "set")
    assert set(store.gray("show_sc01/a.png", "sketch").get_flattened_data()) == {90}
    assert set(store.gray("show_sc01/b.png").get_flattened_data()) == {140}


def test_alpha_is_the_mask_and_the_color_lies_on_white(tmp_path: Path) -> None:
    paint(tmp_path / "show" / "a.png", alpha=True)
    report = make(tmp_path / "show", tmp_path / "set")
    assert report.mask_by == {"alpha": 1}
    store = PictureStore(tmp_path / "set")
    assert store.color("show/a.png").getpixel((0, 0)) == (255, 255, 255)
    assert store.gray("show/a.png").getpixel((0, 0)) == 0 and store.gray("show/a.png").getpixel((24, 18)) == 255


def test_frames_that_cannot_be_used_are_left_out_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "show" / "color"
    paint(folder / "good.png")
    whole = paint(folder / "cut.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    paint(folder / "banner.png", (300, 40))
    paint(folder / "beside.png")
    (tmp_path / "show" / "mask").mkdir()
    Image.new("L", (10, 10)).save(tmp_path / "show" / "mask" / "beside.png")
    report = make(tmp_path / "show", tmp_path / "set")
    assert paths_of(tmp_path / "set") == {"show/good.png"}
    assert set(report.failed) == {f"color/{name}.png" for name in ("cut", "empty", "banner", "beside")}
    assert "more than 4 times" in report.failed["color/banner.png"]
    assert report.failed["color/beside.png"] == "mask/beside.png is 10x10, but its color frame is 48x36"
    assert json.loads((tmp_path / "set" / "report.json").read_text())["failed"] == report.failed


def test_a_picture_whose_mask_is_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "show").mkdir()
    Image.new("RGB", (40, 30), (255, 255, 255)).save(tmp_path / "show" / "blank.png")
    assert make(tmp_path / "show", tmp_path / "set").doubtful == ("show/blank.png",)


def test_the_same_call_makes_nothing_again_and_a_changed_frame_only_its_archive(tmp_path: Path) -> None:
    for shot in ("sc01", "sc02"):
        for number in range(2):
            paint(tmp_path / "show" / shot / f"{number}.png")
    out = tmp_path / "set"
    make(tmp_path / "show", out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.zip")}
    assert make(tmp_path / "show", out).kept == 2
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.zip")} == before
    paint(tmp_path / "show" / "sc02" / "1.png", shade=90)
    assert make(tmp_path / "show", out).kept == 1
    changed = {path.name for path in out.rglob("*.zip") if path.stat().st_mtime_ns != before[path]}
    assert changed == {"show_sc02.zip"}
    assert make(tmp_path / "show", out, replace(OPTIONS, side=20)).kept == 0


def test_a_run_that_was_interrupted_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    for shot in ("sc01", "sc02", "sc03"):
        paint(tmp_path / "show" / shot / "1.png")
    out = tmp_path / "set"
    blocks = frame_blocks(tmp_path / "show", out, OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        write_blocks(out, [OneBlock(block, number == 1) for number, block in enumerate(blocks)])
    assert not (out / "data_index").exists()
    (out / "color" / ".show_sc02.zip.123.tmp").write_bytes(b"half an archive of a killed run")
    report = write_blocks(out, blocks)
    assert report.kept == 1 and report.pictures == 3
    assert not list(out.rglob("*.tmp"))


def test_an_archive_that_was_lost_is_made_again(tmp_path: Path) -> None:
    paint(tmp_path / "show" / "1.png")
    make(tmp_path / "show", tmp_path / "set")
    (tmp_path / "set" / "mask" / "show.zip").unlink()
    assert make(tmp_path / "show", tmp_path / "set").kept == 0
    assert (tmp_path / "set" / "mask" / "show.zip").is_file()


def test_frames_that_are_gone_leave_the_set_and_those_of_another_folder_stay(tmp_path: Path) -> None:
    out = tmp_path / "set"
    for show in ("one", "two"):
        for shot in ("a", "b"):
            paint(tmp_path / show / "frames" / shot / "1.png")
        make(tmp_path / show / "frames", out)
    assert paths_of(out) == {"frames_a/1.png", "frames_b/1.png", "frames_a-/1.png", "frames_b-/1.png"}
    (tmp_path / "two" / "frames" / "b" / "1.png").unlink()
    make(tmp_path / "two" / "frames", out)
    assert paths_of(out) == {"frames_a/1.png", "frames_b/1.png", "frames_a-/1.png"}


def test_large_folders_are_parted_and_names_stay_apart(tmp_path: Path) -> None:
    for number in range(5):
        paint(tmp_path / "show" / f"{number}.png")
    paint(tmp_path / "show" / "1.jpg")
    report = make(tmp_path / "show", tmp_path / "set", per_archive=4)
    assert report.pictures == 6 and report.blocks == 2
    assert paths_of(tmp_path / "set") == {f"show.000/{name}.png" for name in ("0", "1", "1-2", "2")} | {
        f"show.001/{name}.png" for name in ("3", "4")
    }


def test_references_are_other_frames_of_the_same_folder(tmp_path: Path) -> None:
    for number in range(5):
        paint(tmp_path / "show" / "a" / f"{number}.png")
    paint(tmp_path / "show" / "b" / "alone.png")
    make(tmp_path / "show", tmp_path / "set", replace(OPTIONS, references=2))
    index = open_index(PictureStore(tmp_path / "set"), ALL)
    for entry in (index.entry(number) for number in range(len(index))):
        assert len(set(entry.references)) == (0 if "alone" in entry.path else 2)
        assert entry.path not in entry.references
        assert all(name.startswith("show_a/") for name in entry.references)


def test_only_pictures_larger_on_both_sides_are_shrunk(tmp_path: Path) -> None:
    paint(tmp_path / "show" / "large.png", (120, 90))
    paint(tmp_path / "show" / "flat.png", (120, 40))
    make(tmp_path / "show", tmp_path / "set", replace(OPTIONS, side=45))
    store = PictureStore(tmp_path / "set")
    assert store.size("show/large.png", "mask") == (60, 45) and store.size("show/flat.png", "color") == (120, 40)


def test_tags_are_read_once_and_later_if_wanted(tmp_path: Path) -> None:
    paint(tmp_path / "show" / "1.png")
    out, asked = tmp_path / "set", []

    def tags(root: Path, entry: Any) -> str:
        asked.append(entry.path)
        return "ball"

    make(tmp_path / "show", out)
    for _ in range(2):
        report = make(tmp_path / "show", out, tags=tags)
    assert report.kept == 1 and asked == ["show/1.png"]
    assert open_index(PictureStore(out), ALL).entry(0).tags == "ball"
    make(tmp_path / "show", out)
    assert open_index(PictureStore(out), ALL).entry(0).tags == "ball"


def test_two_processes_make_the_set_that_one_makes(tmp_path: Path) -> None:
    for shot in ("a", "b"):
        paint(tmp_path / "show" / shot / "1.png")
    for processes in (1, 2):
        make(tmp_path / "show", tmp_path / str(processes), processes=processes)
    one, two = ({path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.zip")}
                for name in ("1", "2"))
    assert one == two and len(one) == 6


def test_the_set_may_lie_in_the_folder_of_the_frames(tmp_path: Path) -> None:
    paint(tmp_path / "show" / "1.png")
    for _ in range(2):
        make(tmp_path / "show", tmp_path / "show" / "set")
    assert paths_of(tmp_path / "show" / "set") == {"show/1.png"}


def test_linked_folders_count_and_a_link_that_leads_back_does_not(tmp_path: Path) -> None:
    paint(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "show").mkdir()
    (tmp_path / "show" / "sc01").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "show")
    os.mkfifo(tmp_path / "elsewhere" / "pipe.png")   # nobody writes into it: to open it would wait for ever
    make(tmp_path / "show", tmp_path / "set")
    assert paths_of(tmp_path / "set") == {"show_sc01/1.png"}


def test_a_folder_without_pictures_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        frame_blocks(tmp_path / "nowhere", tmp_path / "set", OPTIONS)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match="holds no pictures"):
        frame_blocks(tmp_path, tmp_path / "set", OPTIONS)


def test_a_set_that_cannot_be_written_is_told_with_what_to_do(tmp_path: Path) -> None:
    paint(tmp_path / "show" / "1.png")
    (tmp_path / "set").write_text("a file")
    with pytest.raises(OutputError) as failure:
        make(tmp_path / "show", tmp_path / "set")
    assert "-o" in (failure.value.hint or "")


def test_only_one_call_at_a_time_writes_into_a_set(tmp_path: Path) -> None:
    paint(tmp_path / "show" / "1.png")
    blocks = frame_blocks(tmp_path / "show", tmp_path / "set", OPTIONS)

    def meanwhile(done: int, total: int) -> None:
        with pytest.raises(UsageError, match="another colorcli is writing"):
            write_blocks(tmp_path / "set", blocks)

    assert write_blocks(tmp_path / "set", blocks, tell=meanwhile).pictures == 1
    assert write_blocks(tmp_path / "set", blocks).kept == 1


def test_a_damaged_record_is_made_again(tmp_path: Path) -> None:
    paint(tmp_path / "show" / "1.png")
    make(tmp_path / "show", tmp_path / "set")
    (record,) = (tmp_path / "set" / ".parts").glob("*.json")
    record.write_text("{ half")
    assert make(tmp_path / "show", tmp_path / "set").pictures == 1


def test_extractors_and_networks_are_looked_for_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no extractor crayon"):
        check_options(replace(OPTIONS, extractors=("crayon",)))
    with pytest.raises(UsageError, match="has no file"):
        check_options(replace(OPTIONS, extractors=("network",)))
    with pytest.raises(WeightsError, match=r"nowhere\.onnx"):
        check_options(replace(OPTIONS, mask_network=tmp_path / "nowhere.onnx"))


# --- archives without an index ---------------------------------------------------------------------------------------


def test_archives_that_have_no_index_get_one(tmp_path: Path) -> None:
    written = write_set(tmp_path, [(20, 10), (10, 20), (12, 12), (8, 8)], indexed=False)
    with zipfile.ZipFile(tmp_path / "color" / "00001.zip", "w") as archive:
        archive.writestr("00001/001.png", b"no picture")
    report = index_archives(tmp_path)
    assert report.pictures == 2 and report.groups == {"landscape": 1, "square": 1}
    assert set(report.failed) == {"00001/001.png", "00001/003.png"}
    index = open_index(PictureStore(tmp_path), ALL)
    assert index.indexed
    assert {(index.entry(n).path, index.entry(n).width) for n in range(2)} == {
        (entry.path, entry.width) for entry in written if entry.path.startswith("00000")
    }


def test_a_set_that_was_made_elsewhere_is_left_alone(tmp_path: Path) -> None:
    write_set(tmp_path / "set", [(20, 10)] * 2)
    before = {path: path.read_bytes() for path in (tmp_path / "set").rglob("*") if path.is_file()}
    paint(tmp_path / "show" / "1.png")
    with pytest.raises(OutputError, match="made elsewhere"):
        make(tmp_path / "show", tmp_path / "set")
    with pytest.raises(OutputError, match="has an index already"):
        index_archives(tmp_path / "set")
    assert {path: path.read_bytes() for path in (tmp_path / "set").rglob("*") if path.is_file()} == before


# --- drawings ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    write_blocks(root, [CharacterBlock(first=5, characters=2, poses=2, side=128)])
    return root


def test_every_drawing_of_a_character_is_a_reference_of_its_other_poses(drawn: Path) -> None:
    index = open_index(PictureStore(drawn), ALL)
    entries = {index.entry(number).path: index.entry(number) for number in range(len(index))}
    assert set(entries) == {f"drawn_00000005/{seed:08d}_{pose:02d}.png" for seed in (5, 6) for pose in (0, 1)}
    for path, entry in entries.items():
        other = path.replace("_00.png", "_xx.png").replace("_01.png", "_00.png").replace("_xx.png", "_01.png")
        assert entry.references == (other,) and entry.sketch_by == "drawn" and "view" in entry.tags


def test_drawings_have_lines_and_a_character_where_their_mask_is(drawn: Path) -> None:
    store = PictureStore(drawn)
    for item in store.members("color", "drawn_00000005"):
        sketch, mask = np.asarray(store.gray(item, "sketch")), np.asarray(store.gray(item))
        assert store.color(item).size == sketch.shape[::-1] == mask.shape[::-1]
        assert 0.02 < (mask > 127).mean() < 0.98
        assert sketch.max() == 255 and (sketch < 128).any()
        assert abs(sum(sketch.shape) - 256) <= 4


def test_more_characters_are_added_and_the_others_stay(drawn: Path) -> None:
    blocks = [*character_blocks(2, 2, seed=5, side=128), *character_blocks(1, 1, seed=90, side=128)]
    report = write_blocks(drawn, blocks)
    assert report.kept == 1 and report.pictures == 5
    assert [block.characters for block in character_blocks(45, 1, 0, 128)] == [20, 20, 5]


def test_a_failure_of_one_frame_is_no_failure_of_the_code(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="is missing"):
        prepare(FrameSource(tmp_path / "gone.png"), "gone.png", OPTIONS)
