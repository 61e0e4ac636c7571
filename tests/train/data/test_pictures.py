"""Batches of pictures against the published rules: what is cropped, what is the reference, what is skipped."""

import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from colorcli.errors import DataError
from colorcli.train.data.archives import png_bytes, write_archives
from colorcli.train.data.augment import MaskChanges
from colorcli.train.data.characters import CharacterSet, Sample
from colorcli.train.data.index import INDEX_FOLDER, Entry, PictureFilter, write_index
from colorcli.train.data.pictures import (
    SETTINGS,
    V2,
    XL,
    DrawnPictures,
    PictureSet,
    PictureSettings,
    scaled,
    settings_for,
)
from colorcli.train.turn import Turn
from tests.train.picture_sets import KINDS, color_of, write_set

PLAIN = MaskChanges(grid=0, erase=0, dilation=1)
TINY = replace(scaled(XL, 64, 48), margin_down=0, margin_across=0, mask=PLAIN, which=PictureFilter(min_side=1))
MIXED = [(90, 60)] * 6 + [(60, 90)] * 6 + [(70, 70)] * 6


def turn(step: int) -> Turn:
    return Turn(seed=3, stage="xl-base", step=step)


def numbers_of(batch) -> list[int]:
    """Which pictures are in a batch, by the red of a pixel."""
    return [round(float(value + 1) * 127.5) for value in batch.image[:, 0, 0, 0]]


def write_gradient(root: Path, size: tuple[int, int]) -> None:
    """A picture whose red tells its column and whose green tells its row, alike in color, sketch and mask."""
    width, height = size
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    color = np.stack([columns, rows, columns], axis=2)
    with write_archives(root, "a", KINDS) as writer:
        for kind, pixels in zip(KINDS, (color, color, columns), strict=True):
            writer.add(kind, "1.png", png_bytes(pixels))
    with write_index(root / INDEX_FOLDER) as index:
        index.add(Entry("a/1.png", width, height, 7.25))


def test_a_batch_has_the_published_tensors(tmp_path: Path) -> None:
    write_set(tmp_path, MIXED)
    batch = PictureSet(tmp_path, TINY).batch(turn(0), 3)
    height, width = batch.image.shape[2:]
    assert batch.image.shape == batch.sketch.shape == (3, 3, height, width)
    assert batch.sketch_mask.shape == (3, 1, height, width)
    assert batch.reference.shape == (3, 3, 48, 48) and batch.reference_mask.shape == (3, 1, 48, 48)
    assert (batch.size.shape, batch.crop.shape, batch.score.shape) == ((3, 3), (3, 4), (3,))
    values = [getattr(batch, field.name) for field in fields(batch) if field.name != "names"]
    assert {value.dtype for value in values} == {torch.float32}
    assert batch.names == tuple(f"{number % 2:05d}/{number:03d}.png" for number in numbers_of(batch))
    # Paper is exactly -1, a black line about 1 (it is one row, resized); masks stay in 0..1.
    assert batch.sketch.min() == -1 and batch.sketch.max() > 0
    assert batch.sketch_mask.min() == 0 and batch.sketch_mask.max() == 1
    assert (batch.score == 6).all()


def test_every_picture_of_an_epoch_comes_once_and_is_its_own_reference(tmp_path: Path) -> None:
    write_set(tmp_path, MIXED)
    pictures = PictureSet(tmp_path, TINY)
    seen = []
    for step in range(9):
        batch = pictures.batch(turn(step), 2)
        seen += numbers_of(batch)
        for image, reference in zip(batch.image, batch.reference, strict=True):
            assert torch.allclose(image[:, 0, 0], reference[:, 20, 20])
    assert sorted(seen) == list(range(18))


def test_color_sketch_and_mask_are_cut_at_the_same_place_and_the_crop_says_where(tmp_path: Path) -> None:
    write_gradient(tmp_path, (120, 64))   # its short side is that of the canvas, so nothing is resized
    pictures = PictureSet(tmp_path, replace(TINY, sizes=((64, 64),)))
    lefts = set()
    for step in range(40):
        batch = pictures.batch(turn(step), 1)
        columns = ((batch.image[0, 0, 5] + 1) * 127.5).round().int()
        left = int(columns[0])
        lefts.add(left)
        assert columns.tolist() == list(range(left, left + 64))
        assert torch.equal(batch.sketch, -batch.image)
        assert torch.allclose(batch.sketch_mask[0, 0, 5] * 255, columns.float(), atol=1e-3)
        assert batch.size.tolist() == [[64, 120, 64]]
        assert torch.allclose(batch.crop, torch.tensor([[0, left / 120, 1, 64 / 120]]))
        assert float(batch.score) == 7.25
    assert len(lefts) > 20 and min(lefts) <= 4 and max(lefts) >= 52


def test_the_reference_is_the_whole_picture_squashed(tmp_path: Path) -> None:
    write_gradient(tmp_path, (120, 64))
    batch = PictureSet(tmp_path, TINY).batch(turn(0), 1)
    columns = (batch.reference[0, 0, 24] + 1) * 127.5
    # Pixel i of 48 covers columns 2.5 i to 2.5 (i + 1), whose middle is 2.5 i + 0.75.
    assert torch.allclose(columns[2:-2], 2.5 * torch.arange(2, 46) + 0.75, atol=0.6)
    assert torch.allclose(batch.reference_mask[0, 0, 24] * 255, columns, atol=0.6)


def test_margins_are_blanked_in_the_sketch_alone(tmp_path: Path) -> None:
    write_gradient(tmp_path, (64, 64))
    # Column 0 and row 0 of the gradient are no paper: in a sketch they become it where the margin is blanked.
    pictures = PictureSet(tmp_path, replace(TINY, margin_down=10, margin_across=10))
    blanked = 0
    for step in range(60):
        batch = pictures.batch(turn(step), 1)
        blanked += bool((batch.sketch == -1).all(1).any())
        assert ((batch.image[0, 0, 30] + 1) * 127.5).round().int().tolist() == list(range(64))
        assert torch.equal(batch.sketch[..., 20:40, 20:40], -batch.image[..., 20:40, 20:40])
    assert 30 < blanked < 55   # 0.7 of 60 are 42


def test_v2_crops_anywhere_out_of_a_random_size(tmp_path: Path) -> None:
    write_gradient(tmp_path, (120, 80))
    settings = replace(TINY, sizes=((64, 64), (64, 32)), load=(0, 100))
    pictures = PictureSet(tmp_path, settings)
    shorts, tops, canvases = set(), set(), set()
    for step in range(60):
        batch = pictures.batch(turn(step), 1)
        height, width, short = batch.size[0].tolist()
        top, left, share_down, share_across = batch.crop[0].tolist()
        rows, columns = short, short * 120 // 80
        assert (height, width) == (80, 120)
        assert share_down * rows == pytest.approx(batch.image.shape[2])
        assert share_across * columns == pytest.approx(batch.image.shape[3])
        # The crop lies in the top left square of the load size.
        assert top * rows + batch.image.shape[2] <= min(rows, 100) + 1e-3
        assert left * columns + batch.image.shape[3] <= min(columns, 100) + 1e-3
        middle = (batch.image[0, :2, 30, 15] + 1) * 127.5   # of which column and row of the original
        assert middle[0] == pytest.approx((left * columns + 15.5) * 120 / columns - 0.5, abs=1.2)
        assert middle[1] == pytest.approx((top * rows + 30.5) * 80 / rows - 0.5, abs=1.2)
        shorts.add(short)
        tops.add(round(top * rows))
        canvases.add(tuple(batch.image.shape[2:]))
    assert min(shorts) >= 64 and max(shorts) < 100 and len(shorts) > 20
    assert len(tops) > 10 and canvases == {(64, 64), (64, 32)}


def test_the_same_turn_gives_the_same_batch_and_another_turn_another(tmp_path: Path) -> None:
    write_set(tmp_path, MIXED)
    settings = replace(TINY, margin_down=10, margin_across=10, mask=MaskChanges(cell=(6, 4), dilation=3))
    first, again = PictureSet(tmp_path, settings), PictureSet(tmp_path, replace(settings, readers=1))
    kept = [first.batch(turn(step), 2) for step in range(9)]
    for step in reversed(range(9)):
        repeated = again.batch(turn(step), 2)
        for field in fields(repeated):
            one, other = getattr(repeated, field.name), getattr(kept[step], field.name)
            assert one == other if field.name == "names" else torch.equal(one, other), field.name


def test_two_processes_see_different_pictures(tmp_path: Path) -> None:
    write_set(tmp_path, MIXED)
    shares: list[list[int]] = [[], []]
    for process in range(2):
        pictures = PictureSet(tmp_path, TINY)
        for step in range(3):
            for micro in range(2):
                place = Turn(3, "xl-base", step, micro, process, micros=2, processes=2)
                shares[process] += numbers_of(pictures.batch(place, 1))
    assert len(shares[0]) == len(shares[1]) == 6
    assert len({*shares[0], *shares[1]}) == 12


def break_member(root: Path, kind: str, archive: str, name: str, data: bytes | None) -> None:
    """Put other bytes in the place of a picture, or take it out."""
    path = root / kind / f"{archive}.zip"
    with zipfile.ZipFile(path) as opened:
        members = {member: opened.read(member) for member in opened.namelist() if member != f"{archive}/{name}"}
    with zipfile.ZipFile(path, "w") as opened:
        for member, content in {**members, **({f"{archive}/{name}": data} if data is not None else {})}.items():
            opened.writestr(member, content)


def test_broken_pictures_are_skipped_counted_and_named(tmp_path: Path) -> None:
    write_set(tmp_path, [(70, 70)] * 12, archives=3)
    whole = png_bytes(np.random.default_rng(0).integers(0, 256, (70, 70, 3), dtype=np.uint8))
    break_member(tmp_path, "color", "00000", "000.png", whole[:3000])
    break_member(tmp_path, "sketch", "00001", "001.png", None)
    break_member(tmp_path, "mask", "00002", "002.png", png_bytes(np.zeros((35, 70), np.uint8)))
    (tmp_path / "mask" / "00001.zip").write_bytes(b"PK no archive")
    pictures = PictureSet(tmp_path, TINY)
    seen = set()
    for step in range(24):
        seen |= set(numbers_of(pictures.batch(turn(step), 2)))
    assert seen == {3, 5, 6, 8, 9, 11}   # all but 0, 2 and those of archive 1: 1, 4, 7, 10
    said = str(pictures.broken)
    assert len(pictures.broken.numbers) == 6 and said.startswith("6 pictures could not be used and were skipped:")
    assert "and 1 more" in said
    for reason in ("color/00000/000.png cannot be decoded", "mask/00001.zip is no whole zip archive",
                   "mask/00002/002.png is 70x35, but its color picture is 70x70"):
        assert reason in "\n".join(pictures.broken.first)
    assert str(PictureSet(tmp_path, TINY).broken) == ""


def test_what_is_skipped_changes_nothing_in_the_other_pictures_of_the_batch(tmp_path: Path) -> None:
    for folder in ("whole", "broken"):
        write_set(tmp_path / folder, [(90, 60)] * 8, archives=1)
    settings = replace(TINY, margin_down=20)
    whole = PictureSet(tmp_path / "whole", settings)
    kept = whole.batch(turn(0), 4)
    lost = numbers_of(kept)[0]
    break_member(tmp_path / "broken", "color", "00000", f"{lost:03d}.png", b"")
    other = PictureSet(tmp_path / "broken", settings).batch(turn(0), 4)
    assert numbers_of(other)[0] == (lost + 1) % 8   # the next one takes its place
    assert torch.equal(other.sketch[1:], kept.sketch[1:]) and torch.equal(other.crop, kept.crop)


def test_a_picture_that_takes_the_place_of_a_broken_one_covers_the_canvas(tmp_path: Path) -> None:
    write_set(tmp_path, [(120, 70), (70, 120), (120, 70), (70, 120)], archives=1)
    settings = replace(TINY, sizes=((64, 64), (48, 80), (80, 48)))
    for broken, taken in ((0, 2), (3, 1)):
        root = tmp_path / str(broken)
        write_set(root, [(120, 70), (70, 120), (120, 70), (70, 120)], archives=1)
        break_member(root, "color", "00000", f"{broken:03d}.png", None)
        pictures = PictureSet(root, settings)
        seen = {number for step in range(4) for number in numbers_of(pictures.batch(turn(step), 1))}
        assert seen == {0, 1, 2, 3} - {broken} and taken in seen


def test_a_set_in_which_every_picture_is_broken_is_told_and_not_tried_for_ever(tmp_path: Path) -> None:
    write_set(tmp_path, [(70, 70)] * 4, archives=1)
    (tmp_path / "color" / "00000.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 4 pictures in a row can be used: color/00000.zip is no whole zip"):
        PictureSet(tmp_path, TINY).batch(turn(0), 2)


def test_an_index_that_is_wrong_about_a_size_is_told(tmp_path: Path) -> None:
    write_set(tmp_path, [(90, 60), (60, 90)], archives=1)
    with write_index(tmp_path / INDEX_FOLDER) as index:
        for number in range(2):
            index.add(Entry(f"00000/{number:03d}.png", 90, 60))
    pictures = PictureSet(tmp_path, replace(TINY, sizes=((64, 64), (56, 72))))
    assert [numbers_of(pictures.batch(turn(step), 1)) for step in range(2)] == [[0], [0]]
    assert pictures.broken.first == ["color/00000/001.png is 60x90, but the index says 90x60"]


def test_a_sketch_of_half_the_size_but_the_same_shape_is_used(tmp_path: Path) -> None:
    write_set(tmp_path, [(90, 60)], archives=1)
    break_member(tmp_path, "sketch", "00000", "000.png", png_bytes(np.full((30, 45), 255, np.uint8)))
    assert (PictureSet(tmp_path, TINY).batch(turn(0), 1).sketch == -1).all()


def test_a_batch_too_large_for_the_set_is_told_with_what_there_is(tmp_path: Path) -> None:
    write_set(tmp_path, MIXED)
    with pytest.raises(DataError, match=r"batch of 7: 6 lie across, 6 stand upright, 6 are square"):
        PictureSet(tmp_path, TINY).batch(turn(0), 7)
    shown = PictureSet(tmp_path, replace(TINY, repeated=True)).batch(turn(0), 7)
    assert len(set(numbers_of(shown))) == 6


def test_a_set_without_masks_is_told_before_training_begins(tmp_path: Path) -> None:
    write_set(tmp_path, [(70, 70)], archives=1)
    (tmp_path / "mask").rename(tmp_path / "masks")
    with pytest.raises(DataError, match=r"has no folder mask"):
        PictureSet(tmp_path, TINY)


# --- references ----------------------------------------------------------------------------------------------------


def references_of(pictures: PictureSet, steps: int) -> list[tuple[int, int]]:
    """Picture and reference of each of some batches of one."""
    found = []
    for step in range(steps):
        batch = pictures.batch(turn(step), 1)
        found.append((numbers_of(batch)[0], round(float(batch.reference[0, 0, 9, 9] + 1) * 127.5)))
    return found


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Eight pictures in two archives; the even ones are all references of each other, of those in archive 0."""
    entries = write_set(tmp_path, [(70, 70)] * 8, archives=2)
    even = tuple(entry.path for entry in entries if entry.path.startswith("00000"))
    with write_index(tmp_path / INDEX_FOLDER) as index:
        for entry in entries:
            others = tuple(path for path in even if path != entry.path) if entry.path in even else ()
            index.add(replace(entry, references=others))
    return tmp_path


def test_in_validation_the_reference_is_the_picture_four_further_on(tmp_path: Path) -> None:
    write_set(tmp_path, [(70, 70)] * 7, archives=1)
    pairs = references_of(PictureSet(tmp_path, replace(TINY, reference="shifted")), 7)
    assert sorted(pairs) == [(n, (n + 4) % 7) for n in range(7)]


def test_listed_references_are_drawn_by_lot(listed: Path) -> None:
    pairs = references_of(PictureSet(listed, replace(TINY, reference="listed")), 80)
    for number in range(8):
        seen = {reference for picture, reference in pairs if picture == number}
        assert seen == ({0, 2, 4, 6} - {number} if number % 2 == 0 else {number})


def test_every_listed_reference_makes_an_item_of_its_own(listed: Path) -> None:
    pictures = PictureSet(listed, replace(TINY, reference="every"))
    assert len(pictures) == 4 * 3 + 4
    assert sorted(references_of(pictures, 16)) == sorted(
        [(a, b) for a in (0, 2, 4, 6) for b in (0, 2, 4, 6) if a != b] + [(n, n) for n in (1, 3, 5, 7)]
    )


def test_a_reference_of_the_same_archive_may_be_any_of_it(listed: Path) -> None:
    pairs = references_of(PictureSet(listed, replace(TINY, reference="archive")), 96)
    assert {pair for pair in pairs if pair[0] == 1} == {(1, n) for n in (1, 3, 5, 7)}


def test_in_a_test_the_reference_is_the_file_of_the_same_name(tmp_path: Path) -> None:
    write_set(tmp_path, [(70, 70)] * 2, archives=1)
    with pytest.raises(DataError, match=r"has no folder reference"):
        PictureSet(tmp_path, replace(TINY, reference="paired"))
    with write_archives(tmp_path, "00000", ("reference",)) as writer:
        for number in range(2):
            figure = np.full((50, 60, 3), 255, np.uint8)
            figure[10:, 20:40] = color_of(100 + number)
            writer.add("reference", f"{number:03d}.png", png_bytes(figure))
    batch = PictureSet(tmp_path, replace(TINY, reference="paired")).batch(turn(0), 2)
    for number, reference, mask in zip(numbers_of(batch), batch.reference, batch.reference_mask, strict=True):
        assert round(float(reference[0, 40, 24] + 1) * 127.5) == 100 + number
        assert mask[0, 40, 24] == 1 and mask[0, 3, 3] == 0   # the figure is found in it


def test_several_pictures_of_one_archive_come_together_if_wanted(tmp_path: Path) -> None:
    write_set(tmp_path, [(70, 70)] * 12, archives=3)   # picture n is in archive n mod 3
    pictures = PictureSet(tmp_path, replace(TINY, segment=2))
    for step in range(3):
        numbers = numbers_of(pictures.batch(turn(step), 4))
        assert numbers[0] % 3 == numbers[1] % 3 and numbers[2] % 3 == numbers[3] % 3
    with pytest.raises(DataError, match=r"a batch of 3 is no whole number of 2"):
        pictures.batch(turn(0), 3)


def test_a_mirrored_picture_is_mirrored_in_all_its_layers(tmp_path: Path) -> None:
    write_gradient(tmp_path, (64, 64))
    plain, mirrored = (PictureSet(tmp_path, replace(TINY, flip=flip)).batch(turn(0), 1) for flip in (0.0, 1.0))
    for name in ("image", "sketch", "sketch_mask"):
        assert torch.equal(getattr(mirrored, name), getattr(plain, name).flip(-1))
    assert torch.equal(mirrored.reference, plain.reference)


# --- memory ----------------------------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read as Linux tells it")
def test_memory_stays_as_it_is_however_many_pictures_were_read(tmp_path: Path) -> None:
    write_set(tmp_path, [(500, 500)] * 40, archives=8)   # decoded they would fill 70 MB
    pictures = PictureSet(tmp_path, replace(TINY, readers=2))
    for step in range(2):
        pictures.batch(turn(step), 2)
    before = resident()
    for step in range(2, 20):
        pictures.batch(turn(step), 2)
    assert resident() - before < 20_000_000


# --- settings --------------------------------------------------------------------------------------------------------


def test_scaled_settings_keep_all_lengths_in_proportion() -> None:
    half = scaled(XL, 512, 640)
    assert half.sizes[0] == (512, 512) and half.reference_side == 640
    assert (half.margin_down, half.margin_across) == (100, 100)   # 201 / 2, to even
    assert half.mask.cell == (30, 20) and half.mask.dilation == 11
    assert half.which.min_side == 384 and half.which.min_score == 5.5
    assert scaled(V2, 384, 512).load == (0, 512)


@pytest.mark.parametrize("like", SETTINGS)
def test_unscaled_settings_are_the_published_ones(like: str) -> None:
    assert settings_for(like) == SETTINGS[like]


def test_settings_take_other_filters_and_references() -> None:
    settings: PictureSettings = settings_for("xl", 320, reference="listed", min_score=1.0, min_side=7)
    assert settings.which == PictureFilter(1.0, 5.51, 7) and settings.reference == "listed"


# --- generated drawings -----------------------------------------------------------------------------------------------


@pytest.fixture
def characters(tmp_path: Path) -> CharacterSet:
    """Two characters in two poses, of one gray each, with an upright line in the middle; the upper half is theirs."""
    arrays = {}
    for seed in range(2):
        for pose in range(2):
            gray = 50 * seed + 20 * pose + 20
            line = np.full((64, 96), 255, np.uint8)
            line[:, 48] = 51   # a fifth of the light is left
            mask = np.zeros((8, 12), np.uint8)
            mask[:4] = 255
            cells = np.zeros((32, 32, 2), np.uint8)
            cells[16:, :, 0] = cells[:16, :, 1] = 255
            sample = Sample(
                flat=np.full((64, 96, 3), gray, np.uint8), line=line, cells=np.zeros((8, 12, 2), np.uint8), mask=mask,
                square_color=np.full((256, 256, 3), gray, np.uint8), square_line=np.zeros((256, 256), np.uint8),
                square_cells=cells, square_flat=np.zeros((32, 32, 3), np.uint8), tags=np.zeros(3, np.uint8),
            )  # fmt: skip
            for field in fields(Sample):
                arrays[f"{seed}.{pose}.{field.name}"] = getattr(sample, field.name)
    save_file(arrays, tmp_path / "train.safetensors")
    return CharacterSet([tmp_path / "train.safetensors"])


def test_drawings_come_as_pictures_with_their_lines_on(characters: CharacterSet) -> None:
    batch = DrawnPictures(characters, TINY).batch(turn(0), 4)
    assert batch.image.shape == batch.sketch.shape == (4, 3, 64, 96)
    grays = (batch.image[:, 0, 0, 0] + 1) * 127.5
    assert torch.allclose((batch.image[:, 0, 9, 48] + 1) * 127.5, grays / 5, atol=1)
    assert (batch.sketch[:, :, :, 0] == -1).all()
    assert torch.allclose(batch.sketch[:, :, 9, 48], torch.tensor(1 - 2 * 51 / 255), atol=1e-5)
    assert (batch.sketch_mask[:, 0, :28] == 1).all() and (batch.sketch_mask[:, 0, 36:] == 0).all()
    assert (batch.reference_mask[:, 0, :20] == 1).all() and (batch.reference_mask[:, 0, 28:] == 0).all()
    assert batch.size.tolist() == [[64, 96, 64]] * 4 and batch.crop.tolist() == [[0, 0, 1, 1]] * 4


@pytest.mark.parametrize(("same", "apart"), [(1.0, {0}), (0.0, {20})])
def test_the_reference_of_a_drawing_is_itself_or_another_pose(
    characters: CharacterSet, same: float, apart: set[int]
) -> None:
    drawn = DrawnPictures(characters, TINY, same_pose=same)
    found = set()
    for step in range(6):
        batch = drawn.batch(turn(step), 2)
        gap = (batch.image[:, 0, 0, 0] - batch.reference[:, 0, 0, 0]).abs() * 127.5
        found |= {round(float(value)) for value in gap}
    assert found == apart
