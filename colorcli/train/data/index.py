"""The index of a training set: tables of its pictures, read and written a few rows at a time."""

import bisect
import contextlib
import importlib.util
import json
import math
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from colorcli.errors import DataError, FrameError, MissingExtraError
from colorcli.files import parse_json
from colorcli.train.data.archives import Kind, PictureStore, make_folder
from colorcli.whole_file import whole_file

TableForm = Literal["parquet", "json"]

INDEX_FOLDER = "data_index"
GROUPS = tuple(
    f"{orientation}{ending}"
    for ending in ("", "_with_reference") for orientation in ("landscape", "portrait", "square")
)
DEFAULT_SCORE = 6.0        # of a picture that nobody has scored, as a condition of the model
DEFAULT_SIDE = 1024        # pixels, of a picture whose size is not in the index
ROWS_AT_ONCE = 4096        # rows of a table that are held while it is read or written
KEPT_BYTES = 256 * 2**20   # of decoded row groups that stay in memory
MAX_ENTRY_BYTES = 64 * 2**20  # of one entry of a JSON table


@dataclass(frozen=True)
class Entry:
    """One picture of a training set, as an index tells of it."""

    path: str                          # `<zip-id>/<file>`, the same in color/, sketch/ and mask/
    width: int = DEFAULT_SIDE          # pixels of the color picture
    height: int = DEFAULT_SIDE
    score: float | None = None         # aesthetic score, about 0..10; None: nobody scored it
    exist_sketch: bool = True
    references: tuple[str, ...] = ()   # other pictures of the same archive that can be the reference
    tags: str = ""                     # separated by commas
    caption: str = ""
    sketch_by: str = ""                # what drew the sketch: an extractor, or "given"
    mask_by: str = ""                  # where the mask came from

    @property
    def group(self) -> str:
        """The table it belongs to."""
        side = "landscape" if self.width > self.height else "portrait" if self.width < self.height else "square"
        return f"{side}_with_reference" if self.references else side


@dataclass(frozen=True)
class PictureFilter:
    """Which pictures of an index are learned from; the defaults are those of the published XL training."""

    min_score: float = 5.5         # aesthetic score; a picture with less is left out
    missing_score: float = 5.51    # what a picture without a score counts as, here alone
    min_side: int = 768            # pixels that width and height must both have


@dataclass(frozen=True)
class Counts:
    """How many pictures an index has, and why some of them are left out; each counts once, by the first reason."""

    kept: int = 0
    no_sketch: int = 0
    low_score: int = 0
    small: int = 0
    unreadable: int = 0   # rows without a path or with numbers that are none

    @property
    def total(self) -> int:
        """All rows of all tables."""
        return self.kept + self.no_sketch + self.low_score + self.small + self.unreadable

    def __add__(self, other: "Counts") -> "Counts":
        names = self.__dataclass_fields__
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True)
class Rows:
    """Some rows of a table, without what only a chosen picture needs; every array is (N,)."""

    position: NDArray[np.int64]       # by which the table gives the whole entry
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    score: NDArray[np.float32]        # NaN: nobody scored it
    exist_sketch: NDArray[np.bool_]
    references: NDArray[np.int32]     # count of them
    archive: NDArray[np.uint32]       # a number that pictures of one archive have in common
    readable: NDArray[np.bool_]


class Table(Protocol):
    """One table of pictures on disk."""

    def rows(self) -> Iterator[Rows]:
        """Read all rows in order, some at a time."""

    def entry(self, position: int) -> Entry:
        """Read one row again. Raises FrameError if it is no good."""


def rows_of(entries: Sequence[tuple[int, Entry | None]]) -> Rows:
    """Put entries, with their positions, into columns; None is a row that cannot be read."""
    known = [entry or Entry("") for _, entry in entries]
    return Rows(
        position=np.array([position for position, _ in entries], np.int64),
        width=np.array([entry.width for entry in known], np.int32),
        height=np.array([entry.height for entry in known], np.int32),
        score=np.array([math.nan if entry.score is None else entry.score for entry in known], np.float32),
        exist_sketch=np.array([entry.exist_sketch for entry in known], np.bool_),
        references=np.array([len(entry.references) for entry in known], np.int32),
        archive=np.array([zlib.crc32(entry.path.rpartition("/")[0].encode()) for entry in known], np.uint32),
        readable=np.array([entry is not None for _, entry in entries], np.bool_),
    )


def entry_from(path: Any, fields: dict[str, Any]) -> Entry:
    """Make an entry of one row's values, whatever is missing or written as text. Raises ValueError."""
    if not isinstance(path, str) or not path:
        raise ValueError(f"{path!r} is no path")
    side = fields.get("resolution")  # the older tables have this alone
    sides = side if isinstance(side, list) and len(side) == 2 else (side, side)
    listed = fields.get("reference_list")
    if isinstance(listed, str):
        listed = parse_json(listed) if listed.strip() else []
    if listed is not None and not (isinstance(listed, list) and all(isinstance(name, str) for name in listed)):
        raise ValueError(f"{path}: reference_list is no list of paths")
    tags = fields.get("tags") or ""
    return Entry(
        path=path,
        width=_whole(fields.get("width"), sides[0]),
        height=_whole(fields.get("height"), sides[1]),
        score=_number(fields.get("aesthetic_score")),
        exist_sketch=fields.get("exist_sketch") is True,
        references=tuple(listed or ()),
        tags=", ".join(map(str, tags)) if isinstance(tags, list) else str(tags),
        caption=str(fields.get("caption") or ""),
        sketch_by=str(fields.get("sketch_by") or ""),
        mask_by=str(fields.get("mask_by") or ""),
    )


def _whole(value: Any, other: Any) -> int:
    number = _number(other if _number(value) is None else value)
    if number is None:
        return DEFAULT_SIDE
    if not 1 <= number < 2**31:
        raise ValueError(f"{number} is no size")
    return int(number)


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    return None if math.isnan(number) else number


def fields_of(entry: Entry) -> dict[str, Any]:
    """Give an entry's values under the names that tables have for them, without its path."""
    return {
        "aesthetic_score": entry.score,
        "exist_sketch": entry.exist_sketch,
        "width": entry.width,
        "height": entry.height,
        "caption": entry.caption,
        "tags": entry.tags,
        "reference_list": list(entry.references),
        "sketch_by": entry.sketch_by,
        "mask_by": entry.mask_by,
    }


# --- Parquet -----------------------------------------------------------------------------------------------------


class ParquetTable:
    """A table in Parquet; the row groups used last stay in memory, as long as they are few bytes."""

    SMALL = ("image_path", "aesthetic_score", "exist_sketch", "width", "height", "resolution", "reference_list")

    def __init__(self, path: Path) -> None:
        self.path = path
        parquet = _parquet()
        try:
            self._file = parquet.ParquetFile(path)
        except Exception as problem:  # the library raises its own kinds for whatever is wrong with a file
            raise DataError(f"{path.name} cannot be read: {problem}", hint="copy it again, or take it away") from None
        self._names = [name for name in self._file.schema_arrow.names]
        if "image_path" not in self._names:
            raise DataError(f"{path.name} has no column image_path", hint=f"it has {', '.join(self._names) or 'none'}")
        counts = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._starts = [0, *np.cumsum(counts).tolist()]
        self._groups: OrderedDict[int, Any] = OrderedDict()

    def rows(self) -> Iterator[Rows]:
        """Read all rows in order, some at a time."""
        columns = [name for name in self.SMALL if name in self._names]
        first = 0
        try:
            for batch in self._file.iter_batches(ROWS_AT_ONCE, columns=columns):
                yield rows_of([(first + row, _entry_or_none(fields)) for row, fields in enumerate(batch.to_pylist())])
                first += batch.num_rows
        except _arrow_errors() as problem:
            raise DataError(
                f"{self.path.name} is damaged after {first} rows: {problem}", hint="copy it again, or take it away"
            ) from None

    def entry(self, position: int) -> Entry:
        """Read one row again."""
        group = bisect.bisect_right(self._starts, position) - 1
        if group in self._groups:
            self._groups.move_to_end(group)
        else:
            try:
                self._groups[group] = self._file.read_row_group(group)
            except _arrow_errors() as problem:
                raise FrameError(f"row {position} of {self.path.name} cannot be read: {problem}") from None
            while len(self._groups) > 1 and sum(table.nbytes for table in self._groups.values()) > KEPT_BYTES:
                self._groups.popitem(last=False)
        (fields,) = self._groups[group].slice(position - self._starts[group], 1).to_pylist()
        try:
            return entry_from(fields.get("image_path"), fields)
        except ValueError as problem:
            raise FrameError(f"row {position} of {self.path.name}: {problem}") from None


def _entry_or_none(fields: dict[str, Any]) -> Entry | None:
    try:
        return entry_from(fields.get("image_path"), fields)
    except (ValueError, TypeError):
        return None


def has_parquet() -> bool:
    """Tell whether the library that speaks Parquet is installed."""
    return importlib.util.find_spec("pyarrow") is not None


def _parquet() -> Any:
    """Give the library that speaks Parquet. Raises MissingExtraError."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtraError(
            "reading an index in Parquet needs pyarrow", hint='pip install "colorcli[train]"'
        ) from None
    return parquet


def _arrow_errors() -> tuple[type[Exception], ...]:
    import pyarrow

    return pyarrow.ArrowException, OSError


# --- JSON --------------------------------------------------------------------------------------------------------


class JsonTable:
    """A table in JSON: one object whose keys are the paths of pictures. It is read a piece at a time."""

    def __init__(self, path: Path, chunk: int = 1 << 20) -> None:
        """chunk: bytes that are read at once."""
        self.path = path
        self._chunk = chunk

    def rows(self) -> Iterator[Rows]:
        """Read all rows in order, some at a time."""
        some: list[tuple[int, Entry | None]] = []
        for position, path, fields in self._entries():
            some.append((position, _entry_or_none({**fields, "image_path": path}) if fields is not None else None))
            if len(some) == ROWS_AT_ONCE:
                yield rows_of(some)
                some = []
        if some:
            yield rows_of(some)

    def entry(self, position: int) -> Entry:
        """Read one row again."""
        try:
            for _, path, fields in self._entries(position):
                return entry_from(path, fields or {})
            raise ValueError("the file has become shorter")
        except (ValueError, DataError, TypeError) as problem:
            raise FrameError(f"the entry at byte {position} of {self.path.name}: {problem}") from None

    def _entries(self, start: int | None = None) -> Iterator[tuple[int, str, dict[str, Any] | None]]:
        """Give (byte where it begins, path, values) of every entry, from byte `start` on.

        Values that are no object are None. Raises DataError if the file cannot be read or ends too early.
        """
        try:
            stream = self.path.open("rb")
        except OSError as problem:
            raise DataError(f"{self.path.name} cannot be read: {problem.strerror}") from None
        with stream:
            base = stream.seek(start or 0)
            begun, piece = start is not None, 4096 if start is not None else self._chunk
            text = ""  # as Latin-1, where a character is a byte; what is between the marks of JSON does not matter yet
            while more := stream.read(piece):
                text += more.decode("latin-1")
                at = 0
                if not begun:
                    at = _skip(text, 0, BYTE_ORDER_MARK + BLANKS)
                    if at == len(text):
                        continue
                    if text[at : at + 1] != "{":
                        raise DataError(
                            f"{self.path.name} is no JSON object", hint="its keys are the paths of the pictures"
                        )
                    at, begun = at + 1, True
                while (at := _skip(text, at, BLANKS + ",")) < len(text):
                    if text[at] == "}":
                        return
                    end = _end_of_entry(text, at)
                    if end is None:
                        break
                    yield base + at, *_entry_in(text[at:end].encode("latin-1"))
                    at = end
                base, text = base + at, text[at:]
                if len(text) > MAX_ENTRY_BYTES:
                    break
                piece = max(self._chunk, len(text))
            raise DataError(
                f"{self.path.name} is damaged at byte {base}",
                hint="the file is probably cut off: write or copy it again",
            )


BLANKS = " \t\r\n"
BYTE_ORDER_MARK = "\xef\xbb\xbf"  # of UTF-8, seen as Latin-1
DECODER = json.JSONDecoder()


def _skip(text: str, at: int, characters: str) -> int:
    """Give the first place from `at` on that holds none of the characters."""
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _end_of_entry(text: str, at: int) -> int | None:
    """Give where `"path": value` ends that begins at a place; None if it does not end in this text."""
    try:
        _, at = DECODER.raw_decode(text, at)
        at = _skip(text, at, BLANKS)
        if text[at : at + 1] != ":":
            return None
        _, at = DECODER.raw_decode(text, _skip(text, at + 1, BLANKS))
    except (ValueError, RecursionError):
        return None
    # A number that ends with the text may go on behind it.
    return at if at < len(text) else None


def _entry_in(data: bytes) -> tuple[str, dict[str, Any] | None]:
    try:
        ((path, fields),) = parse_json(b"{" + data + b"}").items()
    except ValueError:
        return "", None
    return path, fields if isinstance(fields, dict) else None


# --- no index ----------------------------------------------------------------------------------------------------


class SketchListing:
    """What stands in for an index where there is none: every picture of every sketch archive, sizes from its header."""

    MEMBERS = 1 << 32  # a position is the archive's number times this, plus the member's

    def __init__(self, store: PictureStore) -> None:
        self._store = store
        self._archives = store.archives("sketch")
        self._last: tuple[int, list[str]] = (-1, [])

    def rows(self) -> Iterator[Rows]:
        """Read all rows in order, those of one archive at a time."""
        for number in range(len(self._archives)):
            try:
                members = self._members(number)
            except FrameError:
                # One row, so that the archive is told of.
                yield rows_of([(number * self.MEMBERS, None)])
                continue
            for first in range(0, len(members), ROWS_AT_ONCE):
                places = range(first, min(first + ROWS_AT_ONCE, len(members)))
                yield rows_of([(number * self.MEMBERS + n, self._entry(members[n])) for n in places])

    def entry(self, position: int) -> Entry:
        """Read one row again."""
        number, member = divmod(position, self.MEMBERS)
        entry = self._entry(self._members(number)[member])
        if entry is None:
            raise FrameError(f"{self._archives[number]} has changed")
        return entry

    def _members(self, number: int) -> list[str]:
        if self._last[0] != number:
            self._last = number, self._store.members("sketch", self._archives[number])
        return self._last[1]

    def _entry(self, item: str) -> Entry | None:
        try:
            width, height = self._store.size(item)
        except FrameError:
            return None
        return Entry(item, width, height)


# --- all tables of a training set ----------------------------------------------------------------------------------


class PictureIndex:
    """The pictures of a training set that pass a filter, by number.

    Sizes and scores of all of them are in memory, about 30 bytes a picture; the rest of a row is read when asked for.
    """

    def __init__(self, tables: Sequence[tuple[Table, Rows]], counts: Counts, *, indexed: bool) -> None:
        """tables: each with the rows of it that are kept."""
        self._tables = [table for table, _ in tables]
        self._lock = threading.Lock()
        self.counts = counts
        self.indexed = indexed   # False: there was no index, and the sketch archives were listed
        rows = [kept for _, kept in tables]
        self._table = np.repeat(np.arange(len(rows), dtype=np.int16), [len(kept.width) for kept in rows])
        self._position = _joined(rows, "position", np.int64)
        self.width = _joined(rows, "width", np.int32)
        self.height = _joined(rows, "height", np.int32)
        self.references = _joined(rows, "references", np.int32)   # count of each picture's
        self.archive = _joined(rows, "archive", np.uint32)        # see `Rows`

    def __len__(self) -> int:
        return len(self.width)

    def entry(self, number: int) -> Entry:
        """Read all of one row. Raises FrameError if it has changed since."""
        with self._lock:
            return self._tables[self._table[number]].entry(int(self._position[number]))


def _joined(rows: Sequence[Rows], name: str, kind: Any) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, kind), *(getattr(kept, name) for kept in rows)])


def open_index(
    store: PictureStore, which: PictureFilter = PictureFilter(), folder: str = INDEX_FOLDER
) -> PictureIndex:
    """Read the tables of a training set and keep what passes the filter; without tables, all pictures with a sketch.

    Of two tables of one name the Parquet one counts. Raises DataError if there is nothing to learn from.
    """
    if not store.root.is_dir():
        raise DataError(f"there is no folder {store.root}", hint="give the folder that holds color/, sketch/ and mask/")
    kinds: tuple[Kind, ...] = ("color", "sketch")
    for kind in kinds:
        if not store.has(kind):
            raise DataError(
                f"{store.root} has no folder {kind}",
                hint="a training set has color/, sketch/ and mask/; colorcli dataset index makes one of any pictures",
            )
    tables = find_tables(store.root / folder)
    opened: list[Table] = [ParquetTable(path) if path.suffix == ".parquet" else JsonTable(path) for path in tables]
    kept, counts = [], Counts()
    for table in opened or [SketchListing(store)]:
        rows, of_table = _kept(table, which)
        kept.append((table, rows))
        counts += of_table
    if not counts.kept:
        where = ", ".join(path.name for path in tables) or "sketch/"
        message = f"none of the {counts.total} pictures of {store.root.name} ({where}) can be used"
        wanted = f"wanted are a score of {which.min_score:g} and {which.min_side} pixels on both sides"
        raise DataError(message, hint=f"{why(counts)}; {wanted}")
    return PictureIndex(kept, counts, indexed=bool(tables))


def find_tables(folder: Path) -> list[Path]:
    """List the tables in an index folder by name, the Parquet one of two with one name."""
    found: dict[str, Path] = {}
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.parquet")], key=lambda path: path.suffix):
        if not path.name.startswith("."):
            found[path.stem] = path  # .parquet comes last
    return [found[name] for name in sorted(found)]


def why(counts: Counts) -> str:
    """Say why pictures were left out: "3 too small, 1 scored too low"."""
    reasons = {
        "no sketch": counts.no_sketch, "scored too low": counts.low_score, "too small": counts.small,
        "unreadable": counts.unreadable,
    }
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count) or "it is empty"


def _kept(table: Table, which: PictureFilter) -> tuple[Rows, Counts]:
    """Read a table and give the rows that pass, and how many do not and why."""
    counts, parts, names = Counts(), [rows_of([])], tuple(Rows.__dataclass_fields__)
    for rows in table.rows():
        score = np.where(np.isnan(rows.score), np.float32(which.missing_score), rows.score)
        tests = {
            "unreadable": rows.readable,
            "no_sketch": rows.exist_sketch,
            "low_score": score >= np.float32(which.min_score),
            "small": np.minimum(rows.width, rows.height) >= which.min_side,
        }
        lost, passes = {}, np.ones_like(rows.readable)
        for reason, good in tests.items():
            lost[reason] = int((passes & ~good).sum())
            passes = passes & good
        counts += Counts(kept=int(passes.sum()), **lost)
        parts.append(Rows(**{name: getattr(rows, name)[passes] for name in names}))
    return Rows(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names}), counts


# --- writing -----------------------------------------------------------------------------------------------------


class IndexWriter:
    """The tables of an index that are being written, a table for each group that has pictures."""

    def __init__(self, folder: Path, files: contextlib.ExitStack, form: TableForm) -> None:
        self._folder = folder
        self._files = files
        self._add = self._add_to_parquet if form == "parquet" else self._add_to_json
        self._form = form
        self._tables: dict[str, Any] = {}
        self._waiting: dict[str, list[Entry]] = {}
        self.counts: dict[str, int] = {}

    def add(self, entry: Entry) -> None:
        """Write a picture into the table of its group."""
        rows = self._waiting.setdefault(entry.group, [])
        rows.append(entry)
        self.counts[entry.group] = self.counts.get(entry.group, 0) + 1
        if len(rows) == ROWS_AT_ONCE:
            self._add(entry.group, rows)
            rows.clear()

    def flush(self) -> None:
        """Write what waits, and the ends of the tables."""
        for group, rows in self._waiting.items():
            self._add(group, rows)
        if self._form == "json":
            for stream in self._tables.values():
                stream.write("\n}\n")

    def _add_to_parquet(self, group: str, entries: Sequence[Entry]) -> None:
        parquet = _parquet()
        import pyarrow as arrow

        schema = arrow.schema([
            ("image_path", arrow.string()), ("aesthetic_score", arrow.float32()), ("exist_sketch", arrow.bool_()),
            ("width", arrow.int32()), ("height", arrow.int32()), ("caption", arrow.string()),
            ("tags", arrow.string()), ("reference_list", arrow.list_(arrow.string())),
            ("sketch_by", arrow.string()), ("mask_by", arrow.string()),
        ])  # fmt: skip
        if group not in self._tables:
            temporary = self._files.enter_context(whole_file(self._folder / f"{group}.parquet"))
            self._tables[group] = self._files.enter_context(parquet.ParquetWriter(temporary, schema))
        rows = [{"image_path": entry.path, **fields_of(entry)} for entry in entries]
        self._tables[group].write_table(arrow.Table.from_pylist(rows, schema=schema))

    def _add_to_json(self, group: str, entries: Sequence[Entry]) -> None:
        if group not in self._tables:
            temporary = self._files.enter_context(whole_file(self._folder / f"{group}.json"))
            self._tables[group] = self._files.enter_context(temporary.open("w", encoding="utf-8"))
            self._tables[group].write("{")
        stream = self._tables[group]
        for entry in entries:
            separator = "\n" if stream.tell() == 1 else ",\n"
            fields = json.dumps(fields_of(entry), ensure_ascii=False, allow_nan=False)
            stream.write(f"{separator}{json.dumps(entry.path, ensure_ascii=False)}: {fields}")


@contextlib.contextmanager
def write_index(folder: Path, form: TableForm = "parquet") -> Iterator[IndexWriter]:
    """Write the tables of an index; on leaving all are whole and in their place, and tables from before are gone.

    Raises OutputError if the disk is full or the folder cannot be written, MissingExtraError for Parquet without its
    library.
    """
    if form == "parquet":
        _parquet()
    make_folder(folder)
    with contextlib.ExitStack() as files:
        writer = IndexWriter(folder, files, form)
        yield writer
        writer.flush()
    for path in (*folder.glob("*.parquet"), *folder.glob("*.json")):
        if path.stem in GROUPS and (path.suffix != f".{form}" or path.stem not in writer.counts):
            path.unlink()
