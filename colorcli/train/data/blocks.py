"""A training set written block after block: each block whole or not there, and never made twice."""

import dataclasses
import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
from filelock import FileLock, Timeout

from colorcli.errors import FrameError, OutputError, UsageError
from colorcli.train.data.archives import Kind, PictureStore, make_folder
from colorcli.train.data.index import (
    INDEX_FOLDER,
    Entry,
    TableForm,
    entry_from,
    fields_of,
    find_tables,
    has_parquet,
    write_index,
)
from colorcli.whole_file import whole_file

Tags = Callable[[Path, Entry], str]

PARTS_FOLDER = ".parts"       # one file for each block, written when its archives are in their place
REPORT = "report.json"
KINDS: tuple[Kind, ...] = ("color", "sketch", "mask")


@dataclass(frozen=True)
class Part:
    """What one block has become."""

    entries: tuple[Entry, ...]
    failed: dict[str, str] = field(default_factory=dict)   # file -> why it is not in the set
    doubtful: tuple[str, ...] = ()                         # paths of pictures whose mask is nothing or nearly all


class Block(Protocol):
    """Some pictures that go into archives of one id."""

    @property
    def zip_id(self) -> str:
        """Name of its archives."""

    @property
    def source(self) -> str:
        """Where its pictures come from: blocks of one source replace those of it that were there before."""

    @property
    def count(self) -> int:
        """Pictures in it, counted before any is read."""

    def made_of(self) -> dict[str, Any]:
        """Tell what it is made of; a block that was made of the same is not made again."""

    def write(self, root: Path) -> Part:
        """Write its archives. Raises OutputError."""


@dataclass(frozen=True)
class SetReport:
    """What a training set has become."""

    pictures: int
    groups: dict[str, int]      # table -> pictures
    sketch_by: dict[str, int]   # what drew the sketches -> pictures
    mask_by: dict[str, int]
    failed: dict[str, str]      # file -> why it is not in the set
    doubtful: tuple[str, ...]
    blocks: int
    kept: int                   # blocks that were there already
    table: str                  # "parquet" or "json"


def write_blocks(
    root: Path,
    blocks: Sequence[Block],
    *,
    processes: int = 1,
    tell: Callable[[int, int], None] = lambda done, total: None,
    tags: Tags | None = None,
) -> SetReport:
    """Write blocks into a training set that may be there already, then its index; blocks that are there stay.

    tell: receives the counts of pictures that are done and of all. tags: gives the tags of a picture that has none,
    from the set's folder and its entry. Ended at any point, the same call goes on with the first block that is missing.
    Raises OutputError if the folder cannot be written or holds a set that was not made by this, UsageError if somebody
    else is writing into it.
    """
    if not (root / PARTS_FOLDER).is_dir() and find_tables(root / INDEX_FOLDER):
        raise OutputError(f"{root} holds a training set that was made elsewhere", hint="choose another folder with -o")
    make_folder(root / PARTS_FOLDER)
    lock = FileLock(root / PARTS_FOLDER / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"another colorcli is writing into {root}", hint="wait for it, or choose another -o") from None
    except OSError as problem:
        raise OutputError(f"{root} cannot be written: {problem.strerror}", hint="choose another folder") from None
    try:
        return _write_missing(root, blocks, processes, tell, tags)
    finally:
        lock.release()


def _write_missing(
    root: Path, blocks: Sequence[Block], processes: int, tell: Callable[[int, int], None], tags: Tags | None
) -> SetReport:
    """Take away what is outdated, write what is missing, and then the tables."""
    _sweep(root)
    for zip_id in _outdated(root, blocks):
        _part_file(root, zip_id).unlink(missing_ok=True)
        for kind in KINDS:
            (root / kind / f"{zip_id}.zip").unlink(missing_ok=True)
    missing = [block for block in blocks if not _is_made(root, block)]
    if tags is not None:
        _tag_parts(root, {block.zip_id for block in blocks}, tags)
    total = sum(block.count for block in blocks)
    done = total - sum(block.count for block in missing)
    tell(done, total)
    for block, part in _written(root, missing, processes):
        _write_part(root, block, part if tags is None else _tagged(root, part, tags))
        done += block.count
        tell(done, total)
    return _write_tables(root, len(blocks) - len(missing))


def sources(root: Path) -> dict[str, str]:
    """Tell of every block of a training set where its pictures came from."""
    parts = {path: _read_part(path) for path in (root / PARTS_FOLDER).glob("*.json")}
    return {path.stem.replace("%", "/"): part["source"] for path, part in parts.items() if part is not None}


def _written(root: Path, blocks: Sequence[Block], processes: int) -> Iterator[tuple[Block, Part]]:
    """Write blocks, in this process or in several, and give them as they are finished."""
    if processes == 1 or len(blocks) < 2:
        for block in blocks:
            yield block, block.write(root)
        return
    spawn = multiprocessing.get_context("spawn")
    workers = min(processes, len(blocks))
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        jobs = {pool.submit(block.write, root): block for block in blocks}
        try:
            for job in as_completed(jobs):
                yield jobs[job], job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _part_file(root: Path, zip_id: str) -> Path:
    return root / PARTS_FOLDER / f"{zip_id.replace('/', '%')}.json"


def _read_part(path: Path) -> dict[str, Any] | None:
    """Read what is known of a block; None if the file is none."""
    try:
        part = json.loads(path.read_text(encoding="utf-8"))
        return part if isinstance(part, dict) and {"source", "made_of", "pictures"} <= part.keys() else None
    except (OSError, ValueError):
        return None


def _is_made(root: Path, block: Block) -> bool:
    part = _read_part(_part_file(root, block.zip_id))
    there = all((root / kind / f"{block.zip_id}.zip").is_file() for kind in KINDS)
    return part is not None and there and part["made_of"] == json.loads(json.dumps(block.made_of()))


def _outdated(root: Path, blocks: Sequence[Block]) -> list[str]:
    """List the ids of blocks of the same sources that are no longer wanted."""
    renewed, wanted = {block.source for block in blocks}, {block.zip_id for block in blocks}
    return [zip_id for zip_id, source in sources(root).items() if source in renewed and zip_id not in wanted]


def _sweep(root: Path) -> None:
    """Take away what a run that was killed has left half written."""
    for folder in (root, root / PARTS_FOLDER, root / INDEX_FOLDER, *(root / kind for kind in KINDS)):
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def _write_part(root: Path, block: Block, part: Part) -> None:
    _write_json(_part_file(root, block.zip_id), {
        "source": block.source,
        "made_of": block.made_of(),
        "pictures": {entry.path: fields_of(entry) for entry in part.entries},
        "failed": part.failed,
        "doubtful": part.doubtful,
    })  # fmt: skip


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def _tagged(root: Path, part: Part, tags: Tags) -> Part:
    """Read the tags of pictures that have none."""
    return dataclasses.replace(part, entries=tuple(
        entry if entry.tags else dataclasses.replace(entry, tags=tags(root, entry)) for entry in part.entries
    ))


def _tag_parts(root: Path, wanted: set[str], tags: Tags) -> None:
    """Read the tags of pictures that were made without."""
    for zip_id in wanted:
        part = _read_part(_part_file(root, zip_id))
        entries = [entry_from(item, fields) for item, fields in part["pictures"].items()] if part else []
        if part is not None and not all(entry.tags for entry in entries):
            tagged = _tagged(root, Part(tuple(entries)), tags)
            pictures = {entry.path: fields_of(entry) for entry in tagged.entries}
            _write_json(_part_file(root, zip_id), {**part, "pictures": pictures})


def _write_tables(root: Path, kept: int) -> SetReport:
    """Write the index of all blocks that are there, one after the other, and the report."""
    table: TableForm = "parquet" if has_parquet() else "json"
    sketch_by: Counter[str] = Counter()
    mask_by: Counter[str] = Counter()
    failed: dict[str, str] = {}
    doubtful: list[str] = []
    parts = sorted((root / PARTS_FOLDER).glob("*.json"))
    with write_index(root / INDEX_FOLDER, table) as index:
        for path in parts:
            part = _read_part(path)
            if part is None:
                raise OutputError(f"{path} is damaged", hint="delete it and run the same command again")
            for item, fields in part["pictures"].items():
                entry = entry_from(item, fields)
                index.add(entry)
                sketch_by[entry.sketch_by] += 1
                mask_by[entry.mask_by] += 1
            failed |= part.get("failed", {})
            doubtful += part.get("doubtful", ())
    return _reported(root, SetReport(
        pictures=sum(index.counts.values()), groups=dict(sorted(index.counts.items())), sketch_by=dict(sketch_by),
        mask_by=dict(mask_by), failed=failed, doubtful=tuple(doubtful), blocks=len(parts), kept=kept, table=table,
    ))  # fmt: skip


def index_archives(root: Path, tell: Callable[[int, int], None] = lambda done, total: None) -> SetReport:
    """Write the index of archives that are there already: of every picture with sketch, color picture and mask.

    Sizes come from the headers of the color pictures; nothing is decoded. Raises OutputError, also where an index is:
    what it says of scores and references nobody else knows.
    """
    if find_tables(root / INDEX_FOLDER):
        raise OutputError(
            f"{root} has an index already", hint=f"move {root / INDEX_FOLDER} away to make one from the archives"
        )
    store = PictureStore(root)
    table: TableForm = "parquet" if has_parquet() else "json"
    failed: dict[str, str] = {}
    archives = store.archives("sketch")
    with write_index(root / INDEX_FOLDER, table) as index:
        for number, archive in enumerate(archives):
            try:
                items = store.members("sketch", archive)
            except FrameError as problem:
                failed[f"sketch/{archive}"] = problem.message
                continue
            for item in items:
                try:
                    width, height = [store.size(item, kind) for kind in ("mask", "sketch", "color")][-1]
                except FrameError as problem:
                    failed[item] = problem.message
                    continue
                index.add(Entry(item, width, height, sketch_by="given", mask_by="given"))
            tell(number + 1, len(archives))
    store.close()
    pictures = sum(index.counts.values())
    return _reported(root, SetReport(
        pictures, dict(sorted(index.counts.items())), {"given": pictures}, {"given": pictures}, failed, (),
        len(archives), len(archives), table,
    ))  # fmt: skip


def _reported(root: Path, report: SetReport) -> SetReport:
    """Write the report beside the set."""
    _write_json(root / REPORT, dataclasses.asdict(report))
    return report
