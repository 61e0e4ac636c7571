"""What is written into an index is read back, and what is left out is counted under its reason."""

import json
from pathlib import Path

import pytest

from colorcli.errors import DataError, FrameError
from colorcli.train.data.archives import PictureStore
from colorcli.train.data.index import (
    INDEX_FOLDER,
    Counts,
    Entry,
    JsonTable,
    ParquetTable,
    PictureFilter,
    find_tables,
    open_index,
    write_index,
)
from tests.train.picture_sets import write_set

ALL = PictureFilter(min_score=0, min_side=1)


def entries(count: int) -> list[Entry]:
    """Entries of all directions, with and without a score and references, and with signs that a file must quote."""
    return [
        Entry(
            f"sc{number % 3} ü/фрейм_{number:05d}.png", 100 + number % 7, 103, None if number % 4 == 0 else number / 8,
            number % 5 > 0, tuple(f"sc{number % 3} ü/{n}.png" for n in range(number % 3)),
            tags="long hair, \"quoted\"", caption="Zeile\nzwei\\", sketch_by="xdog", mask_by="alpha",
        )
        for number in range(count)
    ]  # fmt: skip


def opened(root: Path, which: PictureFilter = ALL):
    for kind in ("color", "sketch"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    return open_index(PictureStore(root), which)


def table_of(root: Path, rows: dict[str, object]) -> Path:
    """Write a JSON table as somebody else would have written it."""
    path = root / INDEX_FOLDER / "landscape.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_what_is_written_is_read(tmp_path: Path, form: str) -> None:
    written = entries(50)
    with write_index(tmp_path / INDEX_FOLDER, form) as index:
        for entry in written:
            index.add(entry)
    read = opened(tmp_path)
    there = [entry for entry in written if entry.exist_sketch]
    assert {read.entry(number) for number in range(len(read))} == set(there)
    assert read.counts == Counts(kept=40, no_sketch=10)
    for number in range(len(read)):
        entry = read.entry(number)
        assert (read.width[number], read.height[number]) == (entry.width, entry.height)
        assert read.references[number] == len(entry.references)


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_more_rows_than_are_held_at_once_are_all_read(tmp_path: Path, form: str) -> None:
    with write_index(tmp_path / INDEX_FOLDER, form) as index:
        for number in range(9001):
            index.add(Entry(f"a/{number}.png", 20, 10, 9.0))
    read = opened(tmp_path)
    assert len(read) == 9001
    assert [read.entry(number).path for number in (0, 4095, 4096, 9000)] == [
        f"a/{number}.png" for number in (0, 4095, 4096, 9000)
    ]


def test_a_picture_is_in_the_table_of_its_direction(tmp_path: Path) -> None:
    with write_index(tmp_path) as index:
        for entry in (Entry("a/1.png", 2, 1), Entry("a/2.png", 1, 2), Entry("a/3.png", 1, 1),
                      Entry("a/4.png", 2, 1, references=("a/1.png",))):
            index.add(entry)
    assert [path.stem for path in find_tables(tmp_path)] == [
        "landscape", "landscape_with_reference", "portrait", "square"
    ]  # fmt: skip


def test_tables_of_an_earlier_index_do_not_stay(tmp_path: Path) -> None:
    for form, entry in (("json", Entry("a/1.png", 2, 1)), ("parquet", Entry("a/2.png", 1, 2))):
        with write_index(tmp_path, form) as index:
            index.add(entry)
    assert [path.name for path in tmp_path.iterdir()] == ["portrait.parquet"]


def test_an_index_that_is_not_finished_leaves_the_one_before(tmp_path: Path) -> None:
    with write_index(tmp_path) as index:
        index.add(Entry("a/1.png", 2, 1))
    with pytest.raises(RuntimeError), write_index(tmp_path) as index:
        index.add(Entry("a/2.png", 2, 1))
        raise RuntimeError("stopped")
    (table,) = find_tables(tmp_path)
    assert ParquetTable(table).entry(0).path == "a/1.png"
    assert len(list(tmp_path.iterdir())) == 1


def test_of_two_tables_of_one_name_the_parquet_one_counts(tmp_path: Path) -> None:
    table_of(tmp_path, {"a/json.png": {"exist_sketch": True}})
    beside = tmp_path / "other"
    with write_index(beside) as index:
        index.add(Entry("a/parquet.png", 2, 1))
    (beside / "landscape.parquet").rename(tmp_path / INDEX_FOLDER / "landscape.parquet")
    assert opened(tmp_path).entry(0).path == "a/parquet.png"


def test_each_picture_that_is_left_out_counts_once_by_its_first_reason(tmp_path: Path) -> None:
    # Of 0..119: every second has no sketch; of the others every third is scored too low; of those left every fifth
    # is too small. 60 + 20 + 8 + 32 = 120.
    rows = {
        f"a/{n}.png": {
            "exist_sketch": n % 2 == 0,
            "aesthetic_score": 5.4 if n % 3 == 0 else 5.5,
            "width": 767 if n % 5 == 0 else 768,
            "height": 2000,
        }
        for n in range(120)
    }
    table_of(tmp_path, rows)
    counts = opened(tmp_path, PictureFilter()).counts
    assert counts == Counts(kept=32, no_sketch=60, low_score=20, small=8)
    assert counts.total == 120


def test_what_a_table_does_not_say_is_filled_in_as_published(tmp_path: Path) -> None:
    table_of(tmp_path, {
        "a/unscored.png": {"exist_sketch": True},
        "a/undrawn.png": {"aesthetic_score": 9.0},
        "a/older.png": {"exist_sketch": True, "resolution": 800, "aesthetic_score": 6},
    })  # fmt: skip
    read = opened(tmp_path, PictureFilter())
    assert read.counts == Counts(kept=2, no_sketch=1)
    unscored, older = read.entry(0), read.entry(1)
    assert (unscored.width, unscored.height, unscored.score) == (1024, 1024, None)   # 5.51 passes 5.5
    assert (older.width, older.height) == (800, 800)
    assert len(opened(tmp_path, PictureFilter(min_score=5.52))) == 1


def test_references_may_be_a_list_or_the_text_of_one(tmp_path: Path) -> None:
    table_of(tmp_path, {
        "a/1.png": {"exist_sketch": True, "reference_list": ["a/2.png", "a/3.png"]},
        "a/2.png": {"exist_sketch": True, "reference_list": '["a/2.png", "a/3.png"]'},
        "a/3.png": {"exist_sketch": True, "reference_list": ""},
        "a/4.png": {"exist_sketch": True, "reference_list": "no list"},
        "a/5.png": {"exist_sketch": True, "reference_list": {"a": 1}},
    })  # fmt: skip
    read = opened(tmp_path)
    assert [read.entry(n).references for n in range(3)] == [("a/2.png", "a/3.png")] * 2 + [()]
    assert read.counts == Counts(kept=3, unreadable=2)


@pytest.mark.parametrize(
    "fields", [[], None, 7, {"width": -3}, {"width": "wide"}, {"aesthetic_score": "good"}, {"height": 1e300}]
)
def test_a_row_that_makes_no_sense_is_counted_and_not_used(tmp_path: Path, fields: object) -> None:
    if isinstance(fields, dict):
        fields = {"exist_sketch": True, **fields}
    table_of(tmp_path, {"a/1.png": {"exist_sketch": True}, "a/2.png": fields})
    assert opened(tmp_path).counts == Counts(kept=1, unreadable=1)


@pytest.mark.parametrize("chunk", [1, 3, 17, 64, 1000])
def test_json_is_read_alike_in_pieces_of_any_size(tmp_path: Path, chunk: int) -> None:
    rows = {f"a/ü{n}.png": {"exist_sketch": True, "width": n + 1, "caption": 'quo"te } {'} for n in range(30)}
    for text in (json.dumps(rows), json.dumps(rows, ensure_ascii=False, indent=2), "\ufeff" + json.dumps(rows)):
        path = tmp_path / "t.json"
        path.write_text(text, encoding="utf-8")
        table = JsonTable(path, chunk)
        positions = [int(position) for some in table.rows() for position in some.position]
        read = [table.entry(position) for position in positions]
        assert [(entry.path, entry.width, entry.caption) for entry in read] == [
            (name, fields["width"], fields["caption"]) for name, fields in rows.items()
        ]


@pytest.mark.parametrize("text", ["", "[1, 2]", "hello", '{"a/1.png"', '{"a/1.png": {"width": 3}', '{"a" 3}', "{,"])
def test_a_damaged_json_table_is_named(tmp_path: Path, text: str) -> None:
    table_of(tmp_path, {}).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"landscape.json"):
        opened(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 200, -8])
def test_a_damaged_parquet_table_is_named(tmp_path: Path, keep: int) -> None:
    with write_index(tmp_path / INDEX_FOLDER) as index:
        for entry in entries(9):
            index.add(entry)
    for table in find_tables(tmp_path / INDEX_FOLDER):
        table.write_bytes(table.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"\.parquet cannot be read"):
        opened(tmp_path)


def test_a_parquet_table_that_is_about_something_else_is_told(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / INDEX_FOLDER).mkdir()
    parquet.write_table(arrow.table({"name": ["a"]}), tmp_path / INDEX_FOLDER / "square.parquet")
    with pytest.raises(DataError, match=r"square.parquet has no column image_path") as failure:
        opened(tmp_path)
    assert failure.value.hint == "it has name"


def test_a_table_that_changes_under_a_running_training_breaks_one_picture_only(tmp_path: Path) -> None:
    table = table_of(tmp_path, {"a/1.png": {"exist_sketch": True}, "a/2.png": {"exist_sketch": True}})
    read = opened(tmp_path)
    table.write_text("{}", encoding="utf-8")
    with pytest.raises(FrameError, match=r"landscape.json"):
        read.entry(1)


def test_without_an_index_every_picture_with_a_sketch_is_used_at_its_own_size(tmp_path: Path) -> None:
    write_set(tmp_path, [(20, 10), (10, 20), (12, 12)], archives=2, indexed=False)
    read = open_index(PictureStore(tmp_path), ALL)
    assert not read.indexed
    assert {(read.entry(n).path, int(read.width[n]), int(read.height[n])) for n in range(len(read))} == {
        ("00000/000.png", 20, 10), ("00001/001.png", 10, 20), ("00000/002.png", 12, 12)
    }  # fmt: skip
    (tmp_path / "sketch" / "00001.zip").write_bytes(b"broken")
    assert open_index(PictureStore(tmp_path), ALL).counts == Counts(kept=2, unreadable=1)


def test_a_folder_that_is_no_training_set_is_told_what_one_has(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder"):
        open_index(PictureStore(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"has no folder color") as failure:
        open_index(PictureStore(tmp_path))
    assert "colorcli dataset index" in (failure.value.hint or "")


def test_a_set_of_which_nothing_passes_says_why(tmp_path: Path) -> None:
    write_set(tmp_path, [(20, 10)] * 3)
    with pytest.raises(DataError, match=r"none of the 3 pictures") as failure:
        open_index(PictureStore(tmp_path))
    assert (failure.value.hint or "").startswith("3 too small; wanted are")
