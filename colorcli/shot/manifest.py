"""What was done to a shot: `manifest.json` (how) and `frames*.jsonl` (a record a frame); no crash loses a record.

Paths in both are relative and POSIX: the shot as seen from OUT, frames by their names. A process writes its own
journal, so the machines of a farm never share a file; whoever finishes writes the manifest over all journals.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.json_schema import models_json_schema

from colorcli.errors import ColorcliError, OutputError, ShotError
from colorcli.images import file_digest

MANIFEST_NAME = "manifest.json"
JOURNAL_PATTERN = "frames*.jsonl"
MERGED_JOURNAL = "frames.jsonl"
SCHEMA_NAME = "colorcli/manifest/1"
SCHEMA_FILE = Path(__file__).with_name("manifest.schema.json")

Status = Literal["written", "skipped", "held", "failed", "missing"]
STATUSES: tuple[Status, ...] = ("written", "skipped", "held", "failed", "missing")
Stamp = tuple[int, int, int, int]  # of a file: bytes, time of writing and of the last change (ns since 1970), inode
THERE: frozenset[Status] = frozenset({"written", "skipped", "held"})  # the picture lies in OUT

ASSUMPTIONS = (
    "PNG, TIFF, TGA and JPEG hold sRGB-encoded color with straight alpha",
    "EXR holds linear Rec.709 color, premultiplied with its alpha",
)


class Entry(BaseModel):
    """A part of the manifest. Fields of a newer colorcli are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Failure(Entry):
    """Why a frame is not there."""

    kind: str
    message: str
    hint: str | None = None

    @classmethod
    def of(cls, error: ColorcliError) -> "Failure":
        """The same, from the exception."""
        return cls(kind=error.kind, message=error.message, hint=error.hint)


class FrameRecord(Entry):
    """One line of a journal: what became of one frame."""

    frame: str = Field(description="the frame's name without extension, walk.0001")
    number: int | None = Field(None, description="the frame's number; null: a picture without one")
    sequence: str = Field("", description="what stands before the number: walk.")
    status: Status
    source: str | None = Field(None, description="file name in the shot's folder")
    output: str | None = Field(None, description="file name in OUT")
    source_sha256: str | None = Field(None, description="of the source file")
    source_stamp: Stamp | None = Field(None, description="by which the source file is known again without reading it")
    pixels_sha256: str | None = Field(None, description="of the decoded source pixels")
    masks_sha256: tuple[str, ...] = Field((), description="of the decoded masks, in order")
    masks_stamps: tuple[Stamp, ...] = Field((), description="of the files of the masks, in order")
    format: str | None = Field(None, description="container and depth of the written file, png/uint8")
    output_sha256: str | None = Field(None, description="of the written file")
    output_stamp: Stamp | None = Field(None, description="of the written file")
    settings_sha256: str | None = Field(None, description="of settings, weights and method; see the manifest")
    fingerprint: str | None = Field(None, description="of all that decides how this frame looks")
    seed: int | None = None
    seconds: float | None = Field(None, description="spent on this frame alone; waiting is not counted")
    held_from: str | None = Field(None, description="for held: the output that this one repeats")
    error: Failure | None = None
    checks: dict[str, float | bool | str] = Field({}, description="what was measured on the frame")
    finished: str = Field("", description="UTC, ISO 8601")

    @property
    def key(self) -> tuple[str, int | str]:
        """What tells one frame of a shot from another."""
        return (self.sequence, self.number) if self.number is not None else ("", self.frame)


class FileEntry(Entry):
    """A file that went in."""

    path: str
    sha256: str | None = Field(None, description="of the decoded pixels")
    size: tuple[int, int] | None = Field(None, description="width, height in pixels")


class ModelEntry(Entry):
    """Weights that painted."""

    name: str
    sha256: str
    license: str = Field(description="SPDX id, or what the file says; not stated")
    used_for: str = Field(
        "color", description="color; else the setting that names it, masks.network, or the entry of a list, lora.1"
    )
    license_from: str = Field("file", description="file: it says so; name: as the published file of this name; nowhere")


class Totals(Entry):
    """How many frames ended how."""

    frames: int = Field(0, description="that have a drawing; the missing ones do not count")
    written: int = 0
    skipped: int = 0
    held: int = 0
    failed: int = 0
    missing: int = 0
    seconds: float = Field(0.0, description="from start to end of the last run")

    @classmethod
    def of(cls, records: Iterable[FrameRecord], seconds: float = 0.0) -> "Totals":
        """Count the records."""
        counts = dict.fromkeys(STATUSES, 0)
        for record in records:
            counts[record.status] += 1
        return cls(frames=sum(counts.values()) - counts["missing"], seconds=round(seconds, 3), **counts)

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(**{name: getattr(self, name) + getattr(other, name) for name in Totals.model_fields})


class ProblemEntry(Entry):
    """Something that was noticed before or during the render."""

    severity: str
    kind: str
    message: str
    hint: str | None = None


class RunEntry(Entry):
    """One process that worked on the shot; the newest one of each journal is kept."""

    journal: str
    started: str
    finished: str
    exit_code: int
    device: str | None = Field(None, description="null: nothing was left to color")
    attention: str | None = None
    engine: str | None = Field(None, description="what ran the networks: torch, or openvino and its version")
    precision: str | None = Field(None, description="in which the network computes: fp32, fp16, bf16")
    memory: str | None = Field(None, description="profile by which the model was kept in memory: full, 24g, 12g, 8g")
    compiled: str | None = Field(None, description="whether the network ran compiled: on, off, or why that failed")
    decoding: str | None = Field(None, description="in which numbers pictures were decoded: fp32, bf16")
    batch: int | None = Field(None, description="frames that were colored together at the end of the run")
    notes: tuple[str, ...] = Field((), description="what happened on the way: the batch was halved, and why")
    versions: dict[str, str] = {}
    totals: Totals = Totals()


class RequestEntry(Entry):
    """What was asked for."""

    refs: tuple[str, ...] = ()
    frames: str | None = None
    chunk: str | None = None
    masks: tuple[str, ...] = ()
    overwrite: bool = False
    preset: str = ""


class Manifest(Entry):
    """How a shot was colored."""

    schema_name: str = Field(SCHEMA_NAME, alias="schema")
    tool: str = Field("", description="version of colorcli")
    created: str = Field("", description="UTC, ISO 8601")
    updated: str = ""
    shot: str = Field(description="the folder of the frames, as seen from here")
    name: str = ""
    request: RequestEntry = RequestEntry()
    settings: dict[str, Any] = Field({}, description="every effective setting")
    settings_sha256: str = Field("", description="of settings, weights and method")
    method: str = Field("", description="version of the method")
    models: tuple[ModelEntry, ...] = ()
    keys: tuple[FileEntry, ...] = ()
    key_sha256: str = Field("", description="of all keys and their masks, and of the background")
    background: FileEntry | None = Field(None, description="the picture that background.image names")
    palette: FileEntry | None = Field(None, description="the file of colors that finish.palette_file names")
    totals: Totals = Totals()
    runs: tuple[RunEntry, ...] = ()
    problems: tuple[ProblemEntry, ...] = ()
    assumptions: tuple[str, ...] = ASSUMPTIONS


class Finding(Entry):
    """One thing that `verify` found."""

    kind: Literal["missing", "altered", "failed", "settings", "gap", "stray", "journal"]
    frame: str
    message: str
    fatal: bool = True


def now() -> str:
    """The time as it is written into records."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def relative_posix(path: Path, start: Path) -> str:
    """A path as seen from a folder, with "/"; only its name where no relative path exists (another drive)."""
    try:
        return Path(os.path.relpath(path, start)).as_posix()
    except ValueError:
        return path.name


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that its name shows the old content or the whole new one, never a part. Raises OutputError."""
    # Cut, for a name may be as long as the file system takes.
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}-{secrets.token_hex(3)}.part")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise output_error(path, error) from error


def output_error(path: Path, error: OSError) -> OutputError:
    """The failure to write a file, in words."""
    hints = {
        errno.ENOSPC: ("the disk is full", "make room and run the same command again: finished frames are kept"),
        errno.EDQUOT: ("the quota is used up", "make room and run the same command again: finished frames are kept"),
        errno.EROFS: ("the disk is read-only", "name another folder with -o"),
        errno.EACCES: ("permission denied", "check the folder's permissions, or name another one with -o"),
        errno.EPERM: ("permission denied", "check the folder's permissions, or name another one with -o"),
    }
    unknown = (error.strerror or str(error), "check the folder, or name another with -o")
    reason, hint = hints.get(error.errno or 0, unknown)
    return OutputError(f"{path} cannot be written: {reason}", hint=hint)


def sha256_of(parts: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of values that JSON can hold, whatever their order."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """The open journal of one process: records are appended, each a line that is on its way to disk at once.

    Any thread may add.
    """

    def __init__(self, path: Path) -> None:
        """Open for appending; a torn last line of a killed process is closed first. Raises OutputError."""
        self.path = path
        self._lock = threading.Lock()
        try:
            self._file: IO[bytes] = path.open("ab+")
            if self._file.seek(0, os.SEEK_END) > 0:
                self._file.seek(-1, os.SEEK_END)
                if self._file.read(1) != b"\n":
                    self._file.write(b"\n")
                    self._file.flush()
        except OSError as error:
            raise output_error(path, error) from error

    def add(self, record: FrameRecord) -> None:
        """Append one record. Raises OutputError."""
        line = record.model_dump_json(exclude_defaults=True) + "\n"
        try:
            with self._lock:
                self._file.write(line.encode())
                self._file.flush()
        except OSError as error:
            raise output_error(self.path, error) from error

    def close(self) -> None:
        """Bring everything to the disk. Raises OutputError."""
        try:
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
            finally:
                self._file.close()
        except OSError as error:
            raise output_error(self.path, error) from error

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def journal_paths(out: Path) -> list[Path]:
    """The journals in OUT, by name."""
    return sorted(path for path in out.glob(JOURNAL_PATTERN) if path.is_file())


def read_journal(path: Path) -> list[FrameRecord]:
    """The records of one journal, in the order written; lines that are torn or no records are passed over."""
    return [record for _, record in _lines(path) if record is not None]


def merge_records(records: Iterable[FrameRecord]) -> list[FrameRecord]:
    """The newest record of each frame, by sequence and number; in whatever order the journals come."""
    newest: dict[tuple[str, int | str], FrameRecord] = {}
    for record in records:
        known = newest.get(record.key)
        if known is None or (record.finished, _rank(record)) >= (known.finished, _rank(known)):
            newest[record.key] = record
    return sorted(newest.values(), key=lambda record: (record.sequence, record.number or 0, record.frame))


def read_records(out: Path) -> list[FrameRecord]:
    """The newest record of each frame over all journals of OUT."""
    return merge_records(record for path in journal_paths(out) for record in read_journal(path))


def read_manifest(out: Path) -> Manifest:
    """Read OUT/manifest.json. Raises ShotError if there is none or it is damaged."""
    path = out / MANIFEST_NAME if out.is_dir() else out
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ShotError(f"there is no {path}", hint="give a folder that colorcli has written") from None
    except OSError as error:
        raise ShotError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ShotError(
            f"{path} is damaged: {where}: {first['msg']}", hint="run the render again: it writes it anew"
        ) from error


def write_manifest(out: Path, manifest: Manifest) -> None:
    """Write OUT/manifest.json as a whole. Raises OutputError."""
    text = manifest.model_dump_json(by_alias=True, indent=2)
    write_atomically(out / MANIFEST_NAME, text.encode() + b"\n")


def update_manifest(
    out: Path, build: Callable[[Manifest | None, list[FrameRecord]], Manifest], attempts: int = 5
) -> Manifest:
    """Write the manifest made by `build(the old one, all records)`; again if a journal grew in the meantime.

    Two machines that finish at once would else write the totals of the slower one's first look. Raises OutputError.
    """
    for _ in range(attempts):
        before = _journal_state(out)
        old: Manifest | None = None
        with contextlib.suppress(ShotError):
            old = read_manifest(out)
        manifest = build(old, read_records(out))
        write_manifest(out, manifest)
        if _journal_state(out) == before:
            break
    return manifest


def merge(out: Path) -> Manifest:
    """Join all journals of OUT into frames.jsonl and count again; may be done twice, in any order.

    Journals of chunks stay: they may belong to machines that still work. Raises ShotError, OutputError.
    """
    old = read_manifest(out)
    records = read_records(out)
    lines = "".join(record.model_dump_json(exclude_defaults=True) + "\n" for record in records)
    write_atomically(out / MERGED_JOURNAL, lines.encode())
    manifest = old.model_copy(update={"totals": Totals.of(records, old.totals.seconds), "updated": now()})
    write_manifest(out, manifest)
    return manifest


def verify(out: Path) -> list[Finding]:
    """Compare OUT with its records: each thing that is not as recorded. Raises ShotError if there is no manifest."""
    manifest = read_manifest(out)
    findings: list[Finding] = []
    for path in journal_paths(out):
        torn = sum(1 for _, record in _lines(path) if record is None)
        if torn:
            findings.append(
                Finding(kind="journal", frame="", message=f"{path.name} has {torn} torn or foreign lines", fatal=False)
            )
    records = read_records(out)
    if not records:
        findings.append(Finding(kind="journal", frame="", message=f"{out} has no record of any frame"))
    for record in records:
        findings += _verify_record(out, manifest, record)
    known = {record.output for record in records}
    suffixes = {Path(name).suffix for name in known if name}
    for path in sorted(out.iterdir()):
        if path.is_file() and path.suffix in suffixes and path.name not in known and not path.name.startswith("."):
            findings.append(
                Finding(kind="stray", frame=path.stem, message=f"{path.name} is in no record", fatal=False)
            )
    return findings


def schema() -> dict[str, Any]:
    """The JSON Schema of the manifest, and (in `$defs`) of a journal's lines."""
    _, defined = models_json_schema(
        [(Manifest, "serialization"), (FrameRecord, "serialization")], by_alias=True, title="colorcli manifest"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_NAME,
        "description": "manifest.json is a Manifest; a line of frames*.jsonl is a FrameRecord without default fields.",
        "$ref": "#/$defs/Manifest",
        **_without_required_defaults(defined),
    }


def schema_text() -> str:
    """The content of manifest.schema.json."""
    return json.dumps(schema(), indent=2, sort_keys=True) + "\n"


def _rank(record: FrameRecord) -> int:
    """Which of two records with one time counts: a picture that is there says more than one that is not."""
    return {"missing": 0, "failed": 1}.get(record.status, 2)


def _lines(path: Path) -> Iterator[tuple[str, FrameRecord | None]]:
    """The lines of a journal, with None for those that are no record."""
    try:
        content = path.read_bytes()
    except OSError:
        return
    for line in content.split(b"\n"):
        if line.strip():
            try:
                yield line.decode(), FrameRecord.model_validate_json(line)
            except (ValidationError, UnicodeDecodeError):
                yield line.decode(errors="replace"), None


def _journal_state(out: Path) -> Sequence[tuple[str, int]]:
    return [(path.name, path.stat().st_size) for path in journal_paths(out)]


def _verify_record(out: Path, manifest: Manifest, record: FrameRecord) -> Iterator[Finding]:
    if record.status == "missing":
        yield Finding(kind="gap", frame=record.frame, message=f"{record.frame} has no drawing", fatal=False)
        return
    if record.status == "failed":
        reason = record.error.message if record.error else "no reason recorded"
        yield Finding(kind="failed", frame=record.frame, message=f"{record.frame} failed: {reason}")
        return
    if not record.output or Path(record.output).name != record.output:
        yield Finding(kind="journal", frame=record.frame, message=f"{record.frame} has no plain file name as output")
        return
    path = out / record.output
    if not path.is_file():
        yield Finding(kind="missing", frame=record.frame, message=f"{record.output} is recorded, but not there")
    elif file_digest(path) != record.output_sha256:
        yield Finding(kind="altered", frame=record.frame, message=f"{record.output} is not the file that was written")
    elif manifest.settings_sha256 and record.settings_sha256 != manifest.settings_sha256:
        yield Finding(kind="settings", frame=record.frame, message=f"{record.output} was colored with other settings")


def _without_required_defaults(defined: dict[str, Any]) -> dict[str, Any]:
    """The same schema, with only those fields required that have no default: a journal's lines leave the others out."""
    models = {model.__name__: model for model in _models()}
    for name, definition in defined.get("$defs", {}).items():
        if name in models:
            needed = [
                field.serialization_alias or field.alias or key
                for key, field in models[name].model_fields.items()
                if field.is_required()
            ]
            definition.pop("required", None)
            if needed:
                definition["required"] = needed
    return defined


def _models() -> list[type[BaseModel]]:
    return [Manifest, FrameRecord, Failure, FileEntry, ModelEntry, Totals, ProblemEntry, RunEntry, RequestEntry]
