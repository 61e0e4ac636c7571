"""A journal loses no line that it was given, whoever kills, merges or fills the disk."""

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from colorcli.errors import OutputError
from colorcli.shot.journal import Journal, JournalReader, is_torn, later_than, shorten
from colorcli.shot.manifest import FrameRecord, read_journal, read_records


def record(number: int, **others: Any) -> FrameRecord:
    values = {"status": "written", "tool": "0", "finished": f"2026-01-01T00:00:00.{number:06d}+00:00", **others}
    return FrameRecord(frame=f"walk.{number:04d}", number=number, sequence="walk.", **values)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "frames.jsonl"


def test_a_torn_last_line_is_taken_away_and_the_others_stay(path):
    with Journal(path) as journal:
        journal.add(record(1))
        journal.add(record(2))
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert is_torn(path)
    Journal(path).close()
    assert path.read_bytes() == whole[: whole.index(b"\n") + 1]
    assert not is_torn(path)


def test_a_last_line_that_only_lacks_its_end_is_kept(path):
    with Journal(path) as journal:
        journal.add(record(1))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    Journal(path).close()
    assert path.read_bytes() == whole


def test_a_torn_line_longer_than_what_is_read_at_once_is_taken_away(path):
    with Journal(path) as journal:
        journal.add(record(1))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"frame":"' + b"x" * 200_000)
    Journal(path).close()
    assert path.read_bytes() == whole


def test_a_disk_that_fills_up_in_the_middle_of_a_line_costs_that_line_only(path, monkeypatch):
    real = os.write

    def write(file: int, data: bytes) -> int:
        return real(file, data[: len(data) // 2])

    with Journal(path) as journal:
        journal.add(record(1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            with pytest.raises(OutputError, match="the disk is full"):
                journal.add(record(2))
        journal.add(record(3))   # another frame, when somebody has made room
    assert read_journal(path) == [record(1), record(3)]


@pytest.mark.parametrize("what", ["merged", "deleted"])
def test_a_journal_that_is_replaced_while_it_is_written_loses_nothing(path, what):
    with Journal(path) as journal:
        journal.add(record(1))
    with Journal(path) as journal:
        journal.add(record(2))
        if what == "merged":
            merged = path.with_name("merged")
            merged.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
            merged.replace(path)
        else:
            path.unlink()
        journal.add(record(3))
    kept = [record(1), record(2), record(3)]
    assert read_journal(path) == (kept if what == "merged" else kept[1:])


def test_many_threads_write_whole_lines(path):
    with Journal(path) as journal:
        threads = [
            threading.Thread(target=lambda first=first: [journal.add(record(first + n)) for n in range(20)])
            for first in (0, 100, 200, 300)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(one.number or 0 for one in read_journal(path)) == [
        first + n for first in (0, 100, 200, 300) for n in range(20)
    ]


def test_a_record_of_a_picture_is_on_the_disk_when_add_returns_and_of_a_skipped_one_later(path, monkeypatch):
    saved = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (saved.append(os.fstat(file).st_size), real(file)))
    with Journal(path) as journal:
        journal.add(record(1, status="skipped"))
        assert saved == []
        journal.add(record(2, status="held"))
        assert saved == [path.stat().st_size]


def test_a_reader_gives_each_record_once_and_a_half_written_one_when_it_is_whole(tmp_path, path):
    with Journal(path) as journal:
        journal.add(record(1))
    reader = JournalReader(tmp_path)
    assert reader.read(()) == [record(1)]
    with Journal(tmp_path / "frames.process2.jsonl") as other:
        other.add(record(2))
        other.add(record(3))
    other_path = tmp_path / "frames.process2.jsonl"
    whole = other_path.read_bytes()
    other_path.write_bytes(whole[:-10])
    assert reader.read({other_path.name}) == [record(2)]
    with other_path.open("ab") as file:
        file.write(whole[-10:])
    assert reader.read({other_path.name}) == [record(3)]
    assert reader.read({other_path.name}) == []


def test_a_reader_reads_a_journal_anew_that_was_replaced(tmp_path, path):
    with Journal(path) as journal:
        journal.add(record(1))
    reader = JournalReader(tmp_path)
    reader.read(())
    with Journal(tmp_path / "new") as journal:
        journal.add(record(4))
    (tmp_path / "new").replace(path)
    assert reader.read({path.name}) == [record(4)]


def test_a_reader_reads_to_the_end_what_a_process_wrote_that_is_gone_and_leaves_out_its_own(tmp_path, path):
    reader = JournalReader(tmp_path)
    reader.read(())
    with Journal(path) as journal:
        journal.add(record(1))
        assert reader.read({path.name}) == [record(1)]
        journal.add(record(2))
    assert reader.read(()) == [record(2)]   # it is no longer in use, and was a moment ago
    with Journal(path) as journal:
        journal.add(record(3))
    assert reader.read({path.name}, own=path.name) == []


def test_what_is_recorded_next_is_later_than_what_a_clock_two_hours_ahead_has_said():
    assert later_than("2999-12-31T23:59:59.999999+00:00") == "3000-01-01T00:00:00.000000+00:00"
    assert later_than("2020-01-01T00:00:00.000000+00:00") > "2026"
    for nonsense in ("9999-12-31T23:59:59.999999+00:00", "tomorrow"):
        assert later_than(nonsense) == nonsense


def test_a_journal_that_cannot_be_written_says_why(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match="cannot be written"):
        Journal(tmp_path)
    with Journal(tmp_path / "frames.jsonl") as journal, monkeypatch.context() as patch:

        def fsync(file: int) -> None:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OutputError, match="the quota is used up"):
            journal.add(record(1))


def test_a_journal_of_many_runs_is_shortened_to_the_newest_record_of_each_frame(path, monkeypatch):
    monkeypatch.setattr("colorcli.shot.journal.FEW_FRAMES", 1)
    with Journal(path) as journal:
        for second in range(40):
            journal.add(record(1, finished=f"2026-01-01T00:00:{second:02d}"))
            journal.add(record(2, finished=f"2026-01-01T00:00:{40 - second:02d}"))
    by_hand = path.read_bytes().splitlines(keepends=True)[0].replace(b'"written"', b'"held"')
    with path.open("ab") as file:
        file.write(by_hand + b'{"frame":"walk.0002","num')
    before, whole = read_records(path.parent), path.read_bytes()
    assert not shorten(path, frames=len(whole) // 4000 + 1), "it is not four times as long as it has to be"
    assert path.read_bytes() == whole
    assert shorten(path, frames=2)
    assert read_records(path.parent) == before
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3 and lines[0] == by_hand, "what was changed by hand stays to be seen"


def test_another_process_reads_a_shortened_journal_anew_and_misses_nothing(path, monkeypatch):
    monkeypatch.setattr("colorcli.shot.journal.FEW_FRAMES", 1)
    with Journal(path) as journal:
        for second in range(40):
            journal.add(record(1, finished=f"2026-01-01T00:00:{second:02d}"))
    reader = JournalReader(path.parent)
    assert [one.finished[-2:] for one in reader.read({path.name})] == ["39"]
    assert shorten(path, frames=1)
    with Journal(path) as journal:
        journal.add(record(2))
    assert [one.number for one in reader.read({path.name})] == [1, 2]
