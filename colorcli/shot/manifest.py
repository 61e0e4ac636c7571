"""What was done to a shot: `manifest.json` (how) and `frames*.jsonl` (a record a frame); no crash loses a record.

Paths in both are relative and POSIX: the shot as seen from OUT, frames by their names. A process writes its own
journal, so the machines of a farm never share a file; whoever finishes writes the manifest over all journals.

Manifest and lines carry a sum of what they say. It is no signature, but what was changed by hand is noticed: such a
line does not count, and the frame it told of is colored again.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.json_schema import models_json_schema

from colorcli.errors import ColorcliError, OutputError, ShotError
from colorcli.files import open_plain, read_plain
from colorcli.whole_file import in_place_of

MANIFEST_NAME = "manifest.json"
JOURNAL_PATTERN = "frames*.jsonl"
MERGED_JOURNAL = "frames.merged.jsonl"   # no process that colors ever has it open
LARGEST_MANIFEST = 64_000_000            # bytes
LOOKED_AT_FROM = 0.01                    # share of the figure in unsure regions from which a person should look
SCHEMA_VERSION = 2
SCHEMA_NAME = f"colorcli/manifest/{SCHEMA_VERSION}"
SCHEMA_PATTERN = re.compile(r"colorcli/manifest/(\d{1,6})")
SCHEMA_FILE = Path(__file__).with_name("manifest.schema.json")

Status = Literal["written", "skipped", "held", "failed", "missing"]
STATUSES: tuple[Status, ...] = ("written", "skipped", "held", "failed", "missing")
FrameKey = tuple[str, int | str]  # sequence and number; of a picture without one "" and its name
Stamp = tuple[int, int, int, int]  # of a file: bytes, time of writing and of the last change (ns since 1970), inode
THERE: frozenset[Status] = frozenset({"written", "skipped", "held"})  # the picture lies in OUT

Pixels = Annotated[int, Field(ge=0, lt=2**31)]
HexColor = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]

OUTSIDE = "names a file outside of its folder"
LINE_SUM = re.compile(rb',"sum":"([0-9a-f]{16})"\}')
LINE_SUM_LENGTH = len(b',"sum":"0123456789abcdef"}')

ASSUMPTIONS = (
    "PNG, TIFF, TGA and JPEG hold sRGB-encoded color with straight alpha",
    "EXR holds linear Rec.709 color, premultiplied with its alpha",
)


def frame_key(sequence: str, number: int | None, name: str) -> FrameKey:
    """What tells one frame of a shot from another. name: its own, without extension; for those without a number."""
    return ("", name) if number is None else (sequence, number)


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


class UnsureRegion(Entry):
    """A region whose color may well be another one."""

    box: tuple[Pixels, Pixels, Pixels, Pixels] = Field(description="left, top, width, height in the picture")
    area: Pixels
    color: HexColor = Field(description="that it has")
    other: HexColor | None = Field(None, description="that it would have else; null: not known, or no other")
    sure: float | None = Field(
        None, ge=0.0, le=1.0, description="chance that it is of the right material; null: not measured"
    )


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
    outputs: dict[str, str] = Field({}, description="further files of the frame: path in OUT -> SHA-256")
    outputs_stamps: dict[str, Stamp] = Field({}, description="of those that have one")
    layers: dict[str, tuple[str, ...]] = Field({}, description="which layers they hold: path -> color, line, ...")
    signed_by: str | None = Field(None, description="SHA-256 of the certificate of its content credentials")
    unsigned_sha256: str | None = Field(None, description="of the file before it was signed")
    tool: str = Field("", description="version of colorcli that wrote the file")
    settings_sha256: str | None = Field(None, description="of settings, weights and method; see the manifest")
    key_sha256: str | None = Field(None, description="of all keys; see the manifest")
    before_sha256: str | None = Field(None, description="for a warm start: of the drawing that it began from")
    around_sha256: str | None = Field(None, description="for steady colors: of the drawings around it")
    fingerprint: str | None = Field(None, description="of all that decides how this frame looks")
    seed: int | None = None
    seconds: float | None = Field(None, description="spent on this frame alone; waiting is not counted")
    held_from: str | None = Field(None, description="for held: the output that this one repeats")
    error: Failure | None = None
    checks: dict[str, int | float | bool | str] = Field({}, description="what was measured on the frame")
    unsure: tuple[UnsureRegion, ...] = Field(
        (), description="regions that a person should look at, the largest first, some of all that checks count"
    )
    finished: str = Field("", description="UTC, ISO 8601")
    chosen: str = Field("", description="time of a newer record, which a merge found not to be of the picture in OUT")

    @property
    def key(self) -> FrameKey:
        """What tells one frame of a shot from another."""
        return frame_key(self.sequence, self.number, self.frame)

    @property
    def is_unsure(self) -> bool:
        """Whether regions of it may well have another color; of a hold only the drawing that is colored is asked."""
        return self.status in THERE and self.held_from is None and bool(self.unsure)

    @property
    def unsure_share(self) -> float | None:
        """The share of the figure that is in unsure regions, 0..1; None: nothing is told of that."""
        share = self.checks.get("unsure_area")
        # Anybody can write a record.
        return min(max(float(share), 0.0), 1.0) if isinstance(share, int | float) and math.isfinite(share) else None

    @property
    def is_to_look_at(self) -> bool:
        """Whether so much of the figure is unsure that a person should look at it."""
        return self.is_unsure and (self.unsure_share or 0.0) >= LOOKED_AT_FROM

    @property
    def counts_from(self) -> str:
        """The time that it is compared by with other records of its frame."""
        return max(self.finished, self.chosen)


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
    unsure: int = Field(
        0, description="of whose figure a hundredth and more is in unsure regions; a held drawing counts once"
    )
    seconds: float = Field(0.0, description="from start to end of the last run")

    @classmethod
    def of(cls, records: Iterable[FrameRecord], seconds: float = 0.0) -> "Totals":
        """Count the records."""
        counts = dict.fromkeys(STATUSES, 0)
        unsure = 0
        for record in records:
            counts[record.status] += 1
            unsure += record.is_to_look_at
        frames = sum(counts.values()) - counts["missing"]
        return cls(frames=frames, unsure=unsure, seconds=round(seconds, 3), **counts)

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
    frames: str | None = Field(None, description="the range that was asked for; empty: the whole shot; null: not told")
    chunk: str | None = Field(None, description="the part of it, 3/10")
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

    shots: tuple[str, ...] = Field((), description="sequences or pictures of the shot's folder; empty: all of it")
    refs: tuple[str, ...] = ()
    frames: str | None = None
    chunk: str | None = None
    masks: tuple[str, ...] = ()
    overwrite: bool = False
    preset: str = ""


class SettingsEntry(Entry):
    """By what frames were colored that are not of the last run."""

    tool: str = ""
    method: str = ""
    settings: dict[str, Any] = {}
    models: tuple[ModelEntry, ...] = ()


class Manifest(Entry):
    """How a shot was colored."""

    schema_name: str = Field(SCHEMA_NAME, alias="schema")
    tool: str = Field("", description="version of colorcli")
    created: str = Field("", description="UTC, ISO 8601")
    updated: str = ""
    shot: str = Field(description="the folder of the frames, as seen from here")
    name: str = ""
    folder: str = Field("", description="what the folder of the manifest was called")
    request: RequestEntry = RequestEntry()
    settings: dict[str, Any] = Field({}, description="every effective setting")
    settings_sha256: str = Field("", description="of settings, weights and method")
    method: str = Field("", description="version of the method")
    models: tuple[ModelEntry, ...] = ()
    earlier_settings: dict[str, SettingsEntry] = Field(
        {}, description="settings_sha256 of frames that are of an earlier run -> by what they were colored"
    )
    keys: tuple[FileEntry, ...] = ()
    key_sha256: str = Field("", description="of all keys and their masks, and of the background")
    background: FileEntry | None = Field(None, description="the picture that background.image names")
    palette: FileEntry | None = Field(None, description="the file of colors that finish.palette_file names")
    totals: Totals = Totals()
    runs: tuple[RunEntry, ...] = ()
    problems: tuple[ProblemEntry, ...] = ()
    assumptions: tuple[str, ...] = ASSUMPTIONS


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
    with in_place_of(path, output_error) as temporary, temporary.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def output_error(path: Path, error: OSError) -> OutputError:
    """The failure to write a file, in words."""
    hints = {
        errno.ENOSPC: ("the disk is full", "make room and run the same command again: finished frames are kept"),
        errno.EDQUOT: ("the quota is used up", "make room and run the same command again: finished frames are kept"),
        errno.EROFS: ("the disk is read-only", "name another folder with -o"),
        errno.EACCES: ("permission denied", "check the folder's permissions, or name another one with -o"),
        errno.EPERM: ("permission denied", "check the folder's permissions, or name another one with -o"),
        errno.ELOOP: ("it is a link", "take the link away, or name another folder with -o"),
    }
    unknown = (error.strerror or str(error), "check the folder, or name another with -o")
    reason, hint = hints.get(error.errno or 0, unknown)
    return OutputError(f"{path} cannot be written: {reason}", hint=hint)


def sha256_of(parts: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of values that JSON can hold, whatever their order."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def journal_paths(out: Path) -> list[Path]:
    """The journals in OUT, by name."""
    return sorted(path for path in out.glob(JOURNAL_PATTERN) if path.is_file())


@dataclass(frozen=True)
class JournalLine:
    """One line of a journal, as it was found."""

    text: bytes                        # without the line break
    record: FrameRecord | None = None  # None: torn, or not a record at all
    fault: str | None = None           # why the record does not count, in words

    @property
    def counts(self) -> bool:
        """Whether what it says can be taken as written."""
        return self.record is not None and self.fault is None


def record_line(record: FrameRecord) -> bytes:
    """A record as a line of a journal, with its sum, without the line break."""
    text = record.model_dump_json(exclude_defaults=True).encode()
    return text[:-1] + b',"sum":"' + _line_sum(text) + b'"}'


def read_line(text: bytes) -> JournalLine:
    """Read one line of a journal; says what is wrong with one that was changed by hand, or that leads out of OUT."""
    found = LINE_SUM.fullmatch(text[-LINE_SUM_LENGTH:])
    try:
        record = FrameRecord.model_validate_json(text)
    except ValidationError:
        return JournalLine(text)
    # The first version had no sums, and no version of the tool either.
    is_first_version = found is None and not record.tool
    if not is_first_version and (found is None or _line_sum(text[:-LINE_SUM_LENGTH] + b"}") != found[1]):
        return JournalLine(text, record, "was changed by hand")
    names = [name for name in (record.source, record.output, record.held_from) if name is not None]
    inside = all(is_file_name(name) for name in names) and all(is_inside(path) for path in record.outputs)
    return JournalLine(text, record, None if inside else OUTSIDE)


def is_file_name(name: str) -> bool:
    """Whether this names a file right in a folder, and not one somewhere else."""
    if name in ("", ".", "..") or "\0" in name or "/" in name:
        return False
    return os.sep == "/" or Path(name).name == name   # a path object for each name of a long journal takes a second


def is_inside(path: str) -> bool:
    """Whether a relative POSIX path stays in the folder that it starts from."""
    parts = PurePosixPath(path).parts
    return bool(parts) and all(is_file_name(part) for part in parts)


def read_lines(path: Path) -> Iterator[JournalLine]:
    """The lines of one journal, in the order written; none if it is not there any more."""
    try:
        with open_plain(path) as file:
            for text in file:
                if text.strip():
                    yield read_line(text.removesuffix(b"\n"))
    except OSError:
        return


def read_journal(path: Path) -> list[FrameRecord]:
    """The records of one journal, in the order written; torn and changed lines are passed over."""
    return [line.record for line in read_lines(path) if line.record is not None and line.fault is None]


def record_order(record: FrameRecord) -> tuple[str, int, str, str]:
    """What a record is compared by with others of its frame: the greatest counts, in whatever order they come.

    The newest; of one time a picture that is there says more than one that is not. The rest only makes it certain.
    """
    rank = 3 if record.chosen else {"missing": 0, "failed": 1}.get(record.status, 2)
    return record.counts_from, rank, record.output_sha256 or "", record.fingerprint or ""


def place_in_shot(record: FrameRecord) -> tuple[str, int, str]:
    """By what the frames of a shot are sorted."""
    return record.sequence, record.number or 0, record.frame


def merge_records(records: Iterable[FrameRecord]) -> list[FrameRecord]:
    """The newest record of each frame, by sequence and number; in whatever order the journals come."""
    newest: dict[FrameKey, FrameRecord] = {}
    for record in records:
        known = newest.get(record.key)
        if known is None or record_order(record) >= record_order(known):
            newest[record.key] = record
    return sorted(newest.values(), key=place_in_shot)


def read_records(out: Path) -> list[FrameRecord]:
    """The newest record of each frame over all journals of OUT."""
    lines = (line for path in journal_paths(out) for line in read_lines(path))
    return merge_records(line.record for line in lines if line.record is not None and line.counts)


def results_in(folder: Path) -> list[Path]:
    """Every folder under (and with) this one that holds a result, in order of name."""
    found = [folder] if holds_result(folder) else []
    try:
        with os.scandir(folder) as entries:
            # A link may lead anywhere, also back up.
            names = [each.name for each in entries if each.is_dir(follow_symlinks=False) and each.name[0] != "."]
    except OSError:
        names = []
    return found + [result for name in sorted(names) for result in results_in(folder / name)]


def results_named(path: Path) -> list[Path]:
    """Every result in a folder, or the one that a manifest is of. Raises ShotError if there is none."""
    found = results_in(path)
    if not found:
        read_manifest(path)   # what is no folder may be the manifest itself
        found = [path.parent]
    return found


def holds_result(folder: Path) -> bool:
    """Whether a folder itself has a manifest, or the journal of a process that was killed before it wrote one."""
    return (folder / MANIFEST_NAME).is_file() or (folder.is_dir() and bool(journal_paths(folder)))


def read_manifest(out: Path) -> Manifest:
    """Read OUT/manifest.json. Raises ShotError if there is none or it is damaged."""
    path = out / MANIFEST_NAME if out.is_dir() else out
    try:
        manifest = Manifest.model_validate_json(read_plain(path, LARGEST_MANIFEST))
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
    if SCHEMA_PATTERN.fullmatch(manifest.schema_name) is None:
        raise ShotError(
            f"{path} is no manifest: its schema is {manifest.schema_name!r}", hint="give a folder of colored frames"
        )
    return manifest


def schema_version(manifest: Manifest) -> int:
    """The version of the schema that a manifest was written by; above SCHEMA_VERSION: by a newer colorcli."""
    found = SCHEMA_PATTERN.fullmatch(manifest.schema_name)
    assert found is not None, manifest.schema_name
    return int(found[1])


def refuse_newer(out: Path) -> None:
    """Raise ShotError if OUT has a manifest of a newer colorcli: writing it anew would lose what is not known here."""
    try:
        manifest = read_manifest(out)
    except ShotError:
        return   # none, or a damaged one, which is written anew
    if schema_version(manifest) > SCHEMA_VERSION:
        raise ShotError(
            f"{out / MANIFEST_NAME} was written by a newer colorcli ({manifest.tool}, schema "
            f"{schema_version(manifest)}; this one knows {SCHEMA_VERSION})",
            hint="go on with that version, or name another folder with -o",
        )


def manifest_text(manifest: Manifest) -> str:
    """The content of manifest.json, with its sum at the end."""
    text = manifest.model_dump_json(by_alias=True, indent=2)
    return f'{text[:-2]},\n  "sum": "{_manifest_sum(json.loads(text))}"\n}}\n'


def is_as_written(out: Path) -> bool:
    """Whether OUT/manifest.json, which can be read, says what colorcli wrote; its layout does not matter.

    The first version had no sums: of such a one nobody knows.
    """
    content = json.loads(read_plain(out / MANIFEST_NAME, LARGEST_MANIFEST))
    written = content.pop("sum", None)
    if written is None and content.get("schema") == "colorcli/manifest/1":
        return True
    return bool(written == _manifest_sum(content))


def write_manifest(out: Path, manifest: Manifest) -> None:
    """Write OUT/manifest.json as a whole. Raises OutputError."""
    write_atomically(out / MANIFEST_NAME, manifest_text(manifest).encode())


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


def schema() -> dict[str, Any]:
    """The JSON Schema of the manifest, and (in `$defs`) of a journal's lines."""
    _, defined = models_json_schema(
        [(Manifest, "serialization"), (FrameRecord, "serialization")], by_alias=True, title="colorcli manifest"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_NAME,
        "description": "manifest.json is a Manifest; a line of frames*.jsonl is a FrameRecord without default fields. "
        "Both end in a sum: of a line the first 16 digits of the SHA-256 of its text without that entry, of the "
        "manifest the SHA-256 of its values without it, as JSON with sorted keys and no spaces, in ASCII.",
        "$ref": "#/$defs/Manifest",
        **_without_required_defaults(defined),
    }


def schema_text() -> str:
    """The content of manifest.schema.json."""
    return json.dumps(schema(), indent=2, sort_keys=True) + "\n"


def _line_sum(text: bytes) -> bytes:
    """Of a record's text, short: it is there for slips, and a line is long enough."""
    return hashlib.sha256(text).hexdigest()[:16].encode()


def _manifest_sum(content: Mapping[str, Any]) -> str:
    """Of a manifest's values without the sum; none for numbers that JSON has not."""
    try:
        return sha256_of(content)
    except ValueError:
        return ""


def _journal_state(out: Path) -> Sequence[tuple[str, int]]:
    return [(path.name, path.stat().st_size) for path in journal_paths(out)]


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
    return [
        Manifest, FrameRecord, Failure, FileEntry, ModelEntry, SettingsEntry, Totals, ProblemEntry, RunEntry,
        RequestEntry,
    ]  # fmt: skip
