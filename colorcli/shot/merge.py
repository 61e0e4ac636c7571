"""The journals of a shot joined into one, and results of machines without a disk in common brought together.

The rule, in whatever order folders are named: a picture whose file is as recorded counts before one whose file is not,
then the newest one. Where two records do not say the same of one picture, that is a conflict: it is named, and settled
by the rule.
"""

import contextlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from colorcli.errors import FrameError, ShotError
from colorcli.files import file_digest
from colorcli.shot.engine import with_paths
from colorcli.shot.layer_files import refuse_links
from colorcli.shot.leases import Leases
from colorcli.shot.manifest import (
    MANIFEST_NAME,
    MERGED_JOURNAL,
    SCHEMA_NAME,
    THERE,
    Entry,
    FileEntry,
    FrameKey,
    FrameRecord,
    Manifest,
    RunEntry,
    SettingsEntry,
    Totals,
    holds_result,
    journal_paths,
    manifest_text,
    output_error,
    place_in_shot,
    read_journal,
    read_lines,
    read_manifest,
    read_records,
    record_line,
    record_order,
    refuse_newer,
    relative_posix,
    results_in,
    update_manifest,
    write_atomically,
)
from colorcli.shot.plan import make_out_folder
from colorcli.shot.sharing import SECONDS_TO_AGREE, alone
from colorcli.whole_file import whole_file


class Conflict(Entry):
    """A frame of which two records do not say the same."""

    frame: str
    message: str
    chosen: str = Field(description="SHA-256 of the picture that counts")
    left: str = Field(description="SHA-256 of the one that does not")


@dataclass(frozen=True)
class Merged:
    """How joining ended."""

    out: Path
    manifest: Manifest
    conflicts: tuple[Conflict, ...] = ()
    copied: tuple[str, ...] = ()     # files that came from other folders
    left_out: tuple[str, ...] = ()   # what was not taken, in words


@dataclass(frozen=True)
class _Candidate:
    """What one folder has of a frame."""

    folder: Path
    record: FrameRecord
    text: bytes           # the line as it was written: fields of another version are kept
    whole: bool = False   # the files are there, with the recorded bytes; False also: not asked yet

    @property
    def order(self) -> tuple[bool, tuple[str, int, str, str], bytes]:
        """The greatest counts in its folder."""
        return self.whole, record_order(self.record), self.text

    @property
    def own_order(self) -> tuple[bool, tuple[str, int, str, str], bytes]:
        """The greatest counts among folders: what one merge has chosen in one of them does not make it newer."""
        own = self.record.model_copy(update={"chosen": ""})
        return self.whole, record_order(own), self.text if not self.record.chosen else record_line(own)


@dataclass
class _Notes:
    conflicts: list[Conflict] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def merge(out: Path, sources: Sequence[Path] = ()) -> Merged:
    """Join all journals of OUT into one, and count again; done twice it changes nothing.

    sources: results of the same shot in other folders, whose pictures are compared with their records and copied.
    Journals stay: they may belong to machines that still work.
    Raises ShotError (no result, one of a newer colorcli, one of another shot), FrameError (a picture changes while it
    is copied), OutputError.
    """
    folders = [out, *dict.fromkeys(source for source in sources if not _is_same(source, out))]
    manifests = _manifests(out, folders)
    notes = _Notes()
    seen = {folder: _lines_of(folder, notes) for folder in folders}
    best = {folder: _best_of_folder(lines, notes) for folder, lines in seen.items()}
    chosen = best[out]
    if len(folders) > 1:
        make_out_folder(out)
        chosen = {
            key: _choose([_looked_at(frames[key]) for frames in best.values() if key in frames], notes)
            for key in dict.fromkeys(key for frames in best.values() for key in frames)
        }
    copied = [name for one in chosen.values() if one.folder != out and one.whole for name in _copy(one, out)]
    _write_journal(out, chosen)
    manifest = _joined(out, manifests, read_records(out))
    if out not in manifests or manifest_text(manifests[out]) != manifest_text(manifest):
        manifest = _write_manifest(out, manifests)
    # Lines of a journal come in the order in which frames were finished, which is another one each time.
    conflicts = sorted(notes.conflicts, key=lambda one: (one.frame, one.chosen, one.left))
    return Merged(out, manifest, tuple(conflicts), tuple(copied), tuple(notes.left_out))


def merge_trees(out: Path, sources: Sequence[Path] = ()) -> list[Merged]:
    """The same for every shot of a tree: OUT/sc01 with SOURCE/sc01 of each source. Raises as `merge` does.

    out: a folder, or the manifest in one.
    """
    if out.is_file():
        read_manifest(out)
        out = out.parent
    parts = {result.relative_to(root) for root in (out, *sources) for result in results_in(root)}
    if not parts:
        read_manifest(out)
    for source in sources:
        if not results_in(source):
            raise ShotError(f"there is no result in {source}", hint="give a folder that colorcli has written")
    return [
        merge(out / part, [source / part for source in sources if holds_result(source / part)])
        for part in sorted(parts)
    ]


# --- what is there -----------------------------------------------------------------------------------------------


def _is_same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _manifests(out: Path, folders: Sequence[Path]) -> dict[Path, Manifest]:
    """The manifests of all folders that have one. Raises ShotError if none has, or they are not of one shot."""
    found: dict[Path, Manifest] = {}
    for folder in folders:
        refuse_newer(folder)
        if (folder / MANIFEST_NAME).exists():
            found[folder] = read_manifest(folder)
        elif folder != out and not journal_paths(folder):
            raise ShotError(f"there is no result in {folder}", hint="give a folder that colorcli has written")
    if not found:
        read_manifest(out)
    first = next(iter(found))
    for folder, manifest in found.items():
        if manifest.name != found[first].name:
            raise ShotError(
                f"{folder} is of the shot {manifest.name}, but {first} of {found[first].name}",
                hint="merge the parts of one shot; for a whole tree name its top folder",
            )
    return found


def _lines_of(folder: Path, notes: _Notes) -> dict[FrameKey, list[_Candidate]]:
    """Everything that the journals of a folder say, frame by frame."""
    found: dict[FrameKey, list[_Candidate]] = {}
    for path in journal_paths(folder):
        for line in read_lines(path):
            if line.record is not None and line.fault is None:
                found.setdefault(line.record.key, []).append(_Candidate(folder, line.record, line.text))
            elif line.record is not None:
                notes.left_out.append(f"{path}: a line of {line.record.frame} {line.fault}")
    return found


def _looked_at(one: _Candidate) -> _Candidate:
    """The same, with `whole` known."""
    record = one.record
    whole = record.status in THERE and record.output is not None and all(
        _digest(one.folder / name) == digest for name, digest in _files_of(record).items()
    )
    return _Candidate(one.folder, record, one.text, whole)


def _files_of(record: FrameRecord) -> dict[str, str | None]:
    """The files of a frame: path in OUT -> SHA-256."""
    assert record.output is not None
    return {record.output: record.output_sha256, **record.outputs}


def _digest(path: Path) -> str | None:
    try:
        return file_digest(path) if path.is_file() else None
    except OSError:
        return None


# --- the rule ----------------------------------------------------------------------------------------------------


def _best_of_folder(
    lines: Mapping[FrameKey, Sequence[_Candidate]], notes: _Notes
) -> dict[FrameKey, _Candidate]:
    """The record of each frame in one folder: the newest, unless the file there is of another that should be the same.

    Two machines that color one frame at once write one file; the record that comes last may be the other's.
    """
    best: dict[FrameKey, _Candidate] = {}
    for key, several in lines.items():
        newest = max(several, key=lambda one: one.order)
        rivals = {one.record.output_sha256: one for one in sorted(several, key=lambda one: one.order)
                  if one.record.status in THERE and one.record.fingerprint == newest.record.fingerprint
                  and not _is_signed_since(one.record, newest.record)}
        if newest.record.status in THERE and len(rivals) > 1:
            looked_at = [_looked_at(one) for one in rivals.values()]
            newest = max(looked_at, key=lambda one: one.order)
            notes.conflicts += [_conflict(newest, one) for one in looked_at if one is not newest]
        best[key] = newest
    return best


def _is_signed_since(one: FrameRecord, newest: FrameRecord) -> bool:
    """Whether a record is of the picture of another one before that was signed, or signed anew."""
    plain = one.unsigned_sha256 or one.output_sha256
    return one.output_sha256 != newest.output_sha256 and plain == newest.unsigned_sha256


def _choose(several: Sequence[_Candidate], notes: _Notes) -> _Candidate:
    """The one that counts, of one frame in several folders, which all were looked at."""
    best = max(several, key=lambda one: one.own_order)
    for one in several:
        if one.record.status not in THERE:
            continue
        if not one.whole:
            text = f"{one.folder / (one.record.output or '')}: not all files of {one.record.frame} are as recorded"
            notes.left_out.append(text)
        elif one.record.output_sha256 != best.record.output_sha256:
            notes.conflicts.append(_conflict(best, one))
    return best


def _conflict(chosen: _Candidate, left: _Candidate) -> Conflict:
    mine, other = chosen.record, left.record
    if mine.fingerprint == other.fingerprint:
        why = "made of the same by two machines, and not the same picture"
    elif mine.pixels_sha256 != other.pixels_sha256:
        why = "two drawings"
    elif mine.settings_sha256 != other.settings_sha256:
        why = "two settings"
    elif mine.key_sha256 != other.key_sha256:
        why = "two keys"
    else:
        why = "other masks, or other drawings around it"
    places = [f"{one.folder.name}, {one.record.finished[:19]}" for one in (chosen, left)]
    return Conflict(
        frame=mine.frame,
        message=f"{mine.frame}: {why}; taken: {places[0]}; left: {places[1]}",
        chosen=mine.output_sha256 or "",
        left=other.output_sha256 or "",
    )


# --- writing -----------------------------------------------------------------------------------------------------


def _copy(one: _Candidate, out: Path) -> list[str]:
    """Copy the files of a frame that are not in OUT yet; gives their names. Raises FrameError, OutputError."""
    copied: list[str] = []
    for name, digest in _files_of(one.record).items():
        target = out / name
        if _digest(target) == digest:
            continue
        refuse_links(out, name)
        with contextlib.suppress(FileExistsError):
            target.parent.mkdir(parents=True)
        with whole_file(target) as temporary:
            shutil.copyfile(one.folder / name, temporary)
            if file_digest(temporary) != digest:
                raise FrameError(
                    f"{one.folder / name} changed while it was copied",
                    hint="wait until nobody works on it, and merge again",
                )
        copied.append(name)
    return copied


def _write_journal(out: Path, chosen: Mapping[FrameKey, _Candidate]) -> None:
    """Write what counts into the merged journal, before what other journals of OUT say. Raises OutputError."""
    staying: dict[FrameKey, list[FrameRecord]] = {}
    for path in journal_paths(out):
        for record in read_journal(path) if path.name != MERGED_JOURNAL else ():
            staying.setdefault(record.key, []).append(record)
    standing = sorted((_standing(one, staying.get(key, ())) for key, one in chosen.items()), key=_place)
    # What somebody changed by hand and nobody recorded again stays to be found.
    kept = [
        line.text
        for line in read_lines(out / MERGED_JOURNAL)
        if line.record is not None and line.fault is not None and line.record.key not in chosen
    ]
    content = b"".join(text + b"\n" for text in (*(text for _, text in standing), *kept))
    path = out / MERGED_JOURNAL
    try:
        same = path.is_file() and path.read_bytes() == content
    except OSError as error:
        raise output_error(path, error) from error
    if not same:
        write_atomically(path, content)


def _standing(one: _Candidate, others: Iterable[FrameRecord]) -> tuple[FrameRecord, bytes]:
    """The record and its line, such that it counts before the other records of its frame that stay in OUT."""
    record, text = one.record, one.text
    if record.chosen:
        record = record.model_copy(update={"chosen": ""})
        text = record_line(record)
    newest = max(others, key=record_order, default=record)
    if record_order(newest) <= record_order(record):
        return record, text
    record = record.model_copy(update={"chosen": newest.counts_from})
    return record, record_line(record)


def _place(entry: tuple[FrameRecord, bytes]) -> tuple[str, int, str]:
    return place_in_shot(entry[0])


def _write_manifest(out: Path, manifests: Mapping[Path, Manifest]) -> Manifest:
    """Write the joined manifest over the one that is there now: a process that colors may just have ended."""

    def build(old: Manifest | None, records: Sequence[FrameRecord]) -> Manifest:
        return _joined(out, manifests if old is None else {**manifests, out: old}, records)

    with Leases(out) as leases, alone(leases, "manifest", SECONDS_TO_AGREE):
        return update_manifest(out, build)


def _joined(out: Path, manifests: Mapping[Path, Manifest], records: Sequence[FrameRecord]) -> Manifest:
    """One manifest of several: what the newest says, with the runs and the settings of all."""
    by_age = sorted(manifests, key=lambda folder: _newness(manifests[folder]))
    moved = [manifests[folder] if folder == out else _moved(manifests[folder], folder, out) for folder in by_age]
    manifest = moved[-1]
    used = {record.settings_sha256 for record in records}
    settings: dict[str, SettingsEntry] = {}
    runs: dict[tuple[str, str], RunEntry] = {}
    for one in moved:
        mine = SettingsEntry(tool=one.tool, method=one.method, settings=one.settings, models=one.models)
        settings |= {**one.earlier_settings, **({one.settings_sha256: mine} if one.settings_sha256 else {})}
        runs |= {(run.started, run.journal): run for run in one.runs}
    return manifest.model_copy(
        update={
            "schema_name": SCHEMA_NAME,
            "created": min(one.created for one in manifests.values()),
            "updated": max([*(one.updated for one in manifests.values()), *(record.finished for record in records)]),
            "folder": out.resolve().name,
            "runs": tuple(runs[key] for key in sorted(runs)),
            "earlier_settings": {
                digest: settings[digest]
                for digest in sorted(settings)
                if digest in used and digest != manifest.settings_sha256
            },
            "totals": Totals.of(records, manifest.totals.seconds),
        }
    )


def _newness(manifest: Manifest) -> tuple[str, str, str]:
    """The greatest is the newest; a merged one is as new as the newest of its parts."""
    return max((run.finished for run in manifest.runs), default=""), manifest.updated, manifest_text(manifest)


def _moved(manifest: Manifest, folder: Path, out: Path) -> Manifest:
    """A manifest from another folder, with its paths as seen from OUT, where they lead to something."""

    def path(text: str) -> str:
        try:
            real = (folder / text).resolve()
            return relative_posix(real, out.resolve()) if real.exists() else text
        except (OSError, ValueError):   # no file can have this name
            return text

    def entry(one: FileEntry) -> FileEntry:
        return one.model_copy(update={"path": path(one.path)})

    request = manifest.request
    return manifest.model_copy(
        update={
            "shot": path(manifest.shot),
            "keys": tuple(entry(one) for one in manifest.keys),
            "background": entry(manifest.background) if manifest.background else None,
            "palette": entry(manifest.palette) if manifest.palette else None,
            "settings": with_paths(manifest.settings, path),
            "earlier_settings": {
                digest: one.model_copy(update={"settings": with_paths(one.settings, path)})
                for digest, one in manifest.earlier_settings.items()
            },
            "request": request.model_copy(
                update={"refs": tuple(map(path, request.refs)), "masks": tuple(map(path, request.masks))}
            ),
        }
    )
