"""A file is known again without being read, and every change to it is found, also one that hides."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colorcli.images import FORMATS, read_picture, write_picture
from colorcli.shot import stamps
from colorcli.shot.manifest import FrameRecord, read_records, record_line
from colorcli.shot.stamps import is_settled, new_digest, stamped_digest
from tests.shot.studio import color, draw, draw_key, draw_shot

SECOND = 1_000_000_000


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    """A shot in a format whose files are all of one size, drawn long enough ago."""
    for number in (1, 2, 3):
        draw(tmp_path / "walk" / f"walk.{number:04d}.tga", number)
    draw_key(tmp_path / "key.png")
    settle()
    return tmp_path / "walk"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the files whose bytes are read to be hashed."""
    names: list[str] = []
    opened: dict[int, str] = {}
    open_file, hash_file = stamps.open_plain, stamps.hashlib.file_digest

    def remember(path: Path):
        stream = open_file(path)
        opened[stream.fileno()] = path.name
        return stream

    def note(stream, kind):
        names.append(opened[stream.fileno()])
        return hash_file(stream, kind)

    monkeypatch.setattr(stamps, "open_plain", remember)
    monkeypatch.setattr(stamps.hashlib, "file_digest", note)
    yield names


def settle() -> None:
    """Wait until a change of a file must show in its times."""
    time.sleep(2 * stamps.FINE_SECONDS)


def rewrite(out: Path, changed: Callable[[FrameRecord], dict[str, Any]]) -> None:
    """Write the records of a shot again, with some fields as `changed` gives them."""
    records = [record.model_copy(update=changed(record)) for record in read_records(out)]
    (out / "frames.jsonl").write_bytes(b"".join(record_line(record) + b"\n" for record in records))


def overwritten_in_place(path: Path) -> None:
    """Other pixels, the same length, and the times of before: what a tool does that means to hide it."""
    before = path.stat()
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(len(content) // 2)
        file.write(bytes(255 - value for value in content[len(content) // 2 :][:300]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    """Another file of the same length and the same time under the same name, as from an archive."""
    other = path.with_name("other")
    shutil.copy2(path, other)
    overwritten_in_place(other)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


def test_a_shot_that_is_done_is_not_read(walk: Path, hashed: list[str]) -> None:
    color(walk)
    assert sorted(hashed) == sorted(2 * ["walk.0001.tga", "walk.0002.tga", "walk.0003.tga"]), "drawings and pictures"
    hashed.clear()
    again = color(walk)
    assert again.result.totals.skipped == 3 and hashed == []


@pytest.mark.parametrize("change", [overwritten_in_place, replaced])
@pytest.mark.parametrize("folder", ["walk", "walk_color"])
def test_a_change_that_keeps_length_and_time_is_found(walk: Path, change: Callable[[Path], None], folder: str) -> None:
    color(walk)
    change(walk.with_name(folder) / "walk.0002.tga")
    assert color(walk).colored == ["walk.0002"]


def test_a_file_that_was_only_touched_is_read_once_more_and_kept(walk: Path, hashed: list[str]) -> None:
    color(walk)
    hashed.clear()
    os.utime(walk / "walk.0002.tga")
    settle()
    assert color(walk).result.totals.skipped == 3
    assert hashed == ["walk.0002.tga"]
    hashed.clear()
    assert color(walk).result.totals.skipped == 3 and hashed == []


def test_a_shot_on_another_disk_is_read_and_not_colored_again(walk: Path, hashed: list[str]) -> None:
    color(walk)
    moved = walk.parent / "elsewhere"
    for name in ("walk", "walk_color"):
        shutil.copytree(walk.with_name(name), moved / name)
    shutil.copy(walk.parent / "key.png", moved / "key.png")
    hashed.clear()
    settle()
    assert color(moved / "walk").result.totals.skipped == 3
    assert len(hashed) == 6
    hashed.clear()
    assert color(moved / "walk").result.totals.skipped == 3 and hashed == []


def test_thorough_reads_all_of_it_whatever_the_records_say(walk: Path, hashed: list[str]) -> None:
    color(walk)
    picture = walk.with_name("walk_color") / "walk.0002.tga"
    overwritten_in_place(picture)
    status = picture.stat()
    stamp = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
    rewrite(picture.parent, lambda record: {"output_stamp": stamp} if record.output == picture.name else {})
    hashed.clear()
    assert color(walk).colored == [], "the record says that this is the file"
    assert color(walk, thorough=True).colored == ["walk.0002"]
    assert len(hashed) >= 6


def test_records_without_stamps_are_read_once(walk: Path, hashed: list[str]) -> None:
    """Those of a colorcli before there were any."""
    color(walk)
    rewrite(walk.with_name("walk_color"), lambda _: {"source_stamp": None, "output_stamp": None, "masks_stamps": ()})
    settle()
    hashed.clear()
    assert color(walk).result.totals.skipped == 3
    assert len(hashed) == 6
    hashed.clear()
    assert color(walk).result.totals.skipped == 3 and hashed == []


def test_masks_are_not_read_again_and_a_repainted_one_is(walk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = walk.parent / "masks"
    masks.mkdir()

    def paint(number: int, columns: int) -> None:
        mask = np.zeros((64, 96, 3), np.float32)
        mask[:, :columns] = 1
        write_picture(masks / f"walk.{number:04d}.png", mask, None, FORMATS["png8"])
        settle()

    for number in (1, 2):
        paint(number, 80)
    read: list[str] = []

    def note(path: Path, *more):
        read.append(f"{path.parent.name}/{path.name}")
        return read_picture(path, *more)

    color(walk, masks=(masks,))
    monkeypatch.setattr(stamps, "read_picture", note)
    assert color(walk, masks=(masks,)).result.totals.skipped == 3 and read == []
    paint(2, 60)
    assert color(walk, masks=(masks,)).colored == ["walk.0002"]
    assert read == ["masks/walk.0002.png"]
    assert color(walk).colored == ["walk.0001", "walk.0002"], "without masks they are other frames"


def test_frames_that_depend_on_others_are_not_read_either(walk: Path, hashed: list[str]) -> None:
    from colorcli.presets import Preset, SteadySettings

    steady = Preset(steady=SteadySettings(on=True))
    color(walk, preset=steady)
    hashed.clear()
    assert color(walk, preset=steady).result.totals.skipped == 3 and hashed == []


def test_a_journal_does_not_grow_with_runs_that_find_nothing_changed(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", [1, 2, 4])
    color(shot)
    settle()
    color(shot)
    journal = tmp_path / "walk_color" / "frames.jsonl"
    settled = journal.read_bytes()
    for _ in range(3):
        again = color(shot)
        assert (again.result.totals.skipped, again.result.totals.missing) == (3, 1)
    assert journal.read_bytes() == settled
    assert len(read_records(tmp_path / "walk_color")) == 4


def test_a_file_that_is_still_being_written_has_no_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"the first half")
    hash_file = stamps.hashlib.file_digest

    def meanwhile(stream, kind):
        with path.open("ab") as file:
            file.write(b", the second")
        return hash_file(stream, kind)

    monkeypatch.setattr(stamps.hashlib, "file_digest", meanwhile)
    for digest_of in (stamped_digest, new_digest):
        assert digest_of(path)[1] is None


def test_a_stamp_counts_only_when_the_next_change_must_show() -> None:
    now = 1_800_000_000
    fine = now * SECOND + 123_456_789
    assert not is_settled((10, fine, fine, 1), now + 0.13)
    assert is_settled((10, fine, fine, 1), now + 0.2)
    whole = now * SECOND   # of a disk that keeps whole seconds, or every other one
    assert not is_settled((10, whole, whole, 1), now + 1.9)
    assert is_settled((10, whole, whole, 1), now + 2.1)
    assert not is_settled((10, whole, fine + 60 * SECOND, 1), now + 2.1), "in the future, by a file server's clock"


def test_a_stamp_is_size_times_and_inode(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(b"pixels")
    digest, stamp = new_digest(path)
    assert stamp == (6, path.stat().st_mtime_ns, path.stat().st_ctime_ns, path.stat().st_ino)
    assert stamped_digest(path, "as recorded", stamp) == ("as recorded", stamp)
    assert stamped_digest(path, "as recorded", (*stamp[:3], stamp[3] + 1))[0] == digest
