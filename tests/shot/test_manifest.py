"""Manifest and journals: what is written can be read, whatever happened in between."""

import json
import random
from pathlib import Path

import jsonschema
import pytest

from colorcli.errors import OutputError, ShotError
from colorcli.shot import manifest as m
from colorcli.shot.journal import Journal
from colorcli.shot.manifest import FrameRecord, Manifest, Totals
from tests.shot.studio import color, draw_shot


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return color(draw_shot(tmp_path / "walk")).plans[0].out


def record(number: int, status: m.Status = "written", finished: str = "2026-01-01T00:00:00", **more) -> FrameRecord:
    return FrameRecord(
        frame=f"walk.{number:04d}", number=number, sequence="walk.", status=status, finished=finished,
        output=f"walk.{number:04d}.png", **more,
    )


def test_the_shipped_schema_is_the_one_of_the_code():
    assert m.SCHEMA_FILE.read_text() == m.schema_text(), (
        "write it anew: python -c 'from colorcli.shot.manifest import *; SCHEMA_FILE.write_text(schema_text())'"
    )


def test_what_is_written_keeps_to_the_schema(out):
    schema = m.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((out / "manifest.json").read_text()), schema)
    lines = {**schema, "$ref": "#/$defs/FrameRecord"}
    for line in (out / "frames.jsonl").read_text().splitlines():
        jsonschema.validate(json.loads(line), lines)


def test_no_path_in_manifest_or_journal_is_absolute(out):
    text = (out / "manifest.json").read_text() + (out / "frames.jsonl").read_text()
    assert str(out.parent) not in text
    assert "\\\\" not in text


def test_a_journal_gives_back_what_was_added(tmp_path):
    records = [record(1), record(2, "failed", error=m.Failure(kind="frame", message="torn\nin two", hint=None))]
    with Journal(tmp_path / "frames.jsonl") as journal:
        for one in records:
            journal.add(one)
    assert m.read_journal(tmp_path / "frames.jsonl") == records


def test_a_torn_last_line_is_passed_over_and_what_follows_is_not_lost(tmp_path):
    path = tmp_path / "frames.jsonl"
    with Journal(path) as journal:
        journal.add(record(1))
        journal.add(record(2))
    path.write_bytes(path.read_bytes()[:-25])
    assert m.read_journal(path) == [record(1)]
    with Journal(path) as journal:
        journal.add(record(3))
    assert m.read_journal(path) == [record(1), record(3)]


def test_a_journal_cut_at_any_byte_keeps_every_whole_line(tmp_path):
    path = tmp_path / "frames.jsonl"
    with Journal(path) as journal:
        for number in range(3):
            journal.add(record(number))
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        whole = content[:length].count(b"\n")
        assert whole <= len(m.read_journal(path)) <= whole + 1


def test_the_newest_record_counts_in_whatever_order_journals_are_joined():
    records = [
        record(1, "failed", "2026-01-01T00:00:00"), record(1, "written", "2026-01-01T00:00:01"),
        record(2, "missing", "2026-01-01T00:00:00"), record(2, "written", "2026-01-01T00:00:00"),
        record(3, "written", "2026-01-01T00:00:00"), record(3, "failed", "2026-01-01T00:00:02"),
    ]
    wanted = ["written", "written", "failed"]
    shuffler = random.Random(3)
    for _ in range(20):
        shuffler.shuffle(records)
        merged = m.merge_records(records)
        assert [one.status for one in merged] == wanted
        assert m.merge_records([*merged, *records]) == merged


def test_fields_of_a_newer_colorcli_are_passed_over(out):
    content = json.loads((out / "manifest.json").read_text())
    content["mood"] = "cheerful"
    (out / "manifest.json").write_text(json.dumps(content))
    assert m.read_manifest(out).totals.written == 4


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"shot": 3}', b"\xff\xfe"])
def test_a_damaged_manifest_is_named_and_the_next_run_writes_it_anew(tmp_path, content):
    shot = draw_shot(tmp_path / "walk")
    out = color(shot).plans[0].out
    (out / "manifest.json").write_bytes(content)
    with pytest.raises(ShotError, match=r"manifest\.json is damaged"):
        m.read_manifest(out)
    assert color(shot).result.totals.skipped == 4
    assert m.read_manifest(out).name == "walk"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "manifest.json"
    m.write_atomically(path, b"old")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="the disk is full"):
        m.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]


def test_two_processes_that_end_at_once_leave_the_totals_of_both(tmp_path):
    """The other journal grows while this manifest is being made."""
    with Journal(tmp_path / "frames.a.jsonl") as journal:
        journal.add(record(1))
    grown = []

    def build(old: Manifest | None, records: list[FrameRecord]) -> Manifest:
        if not grown:
            grown.append(1)
            with Journal(tmp_path / "frames.b.jsonl") as journal:
                journal.add(record(2))
        return Manifest(shot="../walk", totals=Totals.of(records))

    assert m.update_manifest(tmp_path, build).totals.written == 2
    assert m.read_manifest(tmp_path).totals.written == 2
