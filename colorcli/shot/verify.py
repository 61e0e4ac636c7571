"""Whether a result is what its records say: every file, what it was made by, and what it was made of.

Sums find what went wrong and what was changed by hand. They are no signatures: who writes a whole new result, records
and all, is not found.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from colorcli.errors import ColorcliError, FrameError, ShotError, UsageError
from colorcli.files import file_digest
from colorcli.images import picture_digest, read_picture
from colorcli.settings import flattened
from colorcli.shot.engine import fingerprint
from colorcli.shot.frames import FrameFile, FrameRange, find_frames, find_shots
from colorcli.shot.key_files import key_test
from colorcli.shot.manifest import (
    MANIFEST_NAME,
    OUTSIDE,
    SCHEMA_VERSION,
    THERE,
    Entry,
    FileEntry,
    FrameKey,
    FrameRecord,
    Manifest,
    SettingsEntry,
    frame_key,
    is_as_written,
    is_file_name,
    is_inside,
    journal_paths,
    merge_records,
    read_journal,
    read_lines,
    read_manifest,
    results_named,
    schema_version,
)
from colorcli.variants import METHOD_VERSION
from colorcli.whole_file import TEMPORARY

FindingKind = Literal[
    "missing",    # recorded, and not there
    "uncolored",  # a drawing that no record tells of
    "failed",     # it could not be colored
    "altered",    # the file is another one than was written
    "swapped",    # and it is known whose it is: `belongs_to`
    "settings",   # colored with other settings than the shot
    "version",    # by another version of the method, or of colorcli
    "weights",    # with other weights
    "key",        # from another key
    "edited",     # manifest or record were changed by hand
    "changed",    # the drawing or the key is another one since
    "gap",        # a number without a drawing
    "stray",      # a file that no record tells of
    "journal",    # torn lines, records that the manifest does not know of
    "manifest",   # it is missing, damaged, or of a newer colorcli
]
READERS = 8          # files that are read at the same time
DIFFERENCES_TOLD = 3
NEIGHBORS_ASKED = 200


class Finding(Entry):
    """One thing that `verify` found."""

    kind: FindingKind
    frame: str = Field(description="name of the frame, walk.0001; empty: it is about the whole result")
    message: str
    fatal: bool = True
    belongs_to: str | None = Field(None, description="for swapped: the file whose picture, or the shot whose, this is")


class Report(Entry):
    """What was found in one result."""

    out: str
    shot: str = ""
    frames: int = Field(0, description="with a drawing, as far as records tell")
    checked: int = Field(0, description="files of frames whose bytes were compared")
    findings: tuple[Finding, ...] = ()

    @property
    def fatal(self) -> tuple[Finding, ...]:
        """What has to be mended."""
        return tuple(finding for finding in self.findings if finding.fatal)


@dataclass(frozen=True)
class Expected:
    """Which drawings have to be colored."""

    frames: FrameRange | None = None   # None: those that the runs were asked for
    drawings: bool = True              # whether drawings and keys are compared with what they were


def verify(out: Path, expected: Expected | None = None, others: Sequence[Path] = ()) -> list[Finding]:
    """Compare OUT with its records: each thing that is not as recorded. Raises ShotError if there is no manifest.

    others: results among which the owner of a swapped picture is looked for, beside those that lie next to OUT.
    """
    return list(_Result(out, expected or Expected(), Elsewhere([out, *others])).report().findings)


def verify_all(outs: Sequence[Path], expected: Expected | None = None) -> Iterator[Report]:
    """The same for every result in some folders and the folders in them, or of some manifests.

    Raises ShotError at once for a folder without any. A result whose manifest cannot be read is found wanting, and the
    next one is looked at.
    """
    known = list(dict.fromkeys(result for out in outs for result in results_named(out)))
    elsewhere = Elsewhere(known)
    for result in known:
        try:
            yield _Result(result, expected or Expected(), elsewhere).report()
        except ShotError as error:
            if len(known) == 1:
                raise
            yield Report(out=str(result), findings=(Finding(kind="manifest", frame="", message=error.message),))


@dataclass(frozen=True)
class _Owner:
    """A frame of another result."""

    out: Path
    shot: str
    output: str | None
    finished: str

    def told(self, out: Path) -> str:
        """Which it is, in words, as seen from the result that is looked at."""
        where = self.out.name if self.out.parent == out.resolve().parent else str(self.out)
        return f"{self.output} of the shot {self.shot} (in {where})"


class Elsewhere:
    """Other results, asked only once a picture is found that may be one of theirs."""

    def __init__(self, outs: Iterable[Path]) -> None:
        """outs: results; those that lie next to them are looked through as well."""
        self._outs = list(dict.fromkeys(out.resolve() for out in outs))

    @functools.cached_property
    def manifests(self) -> Mapping[Path, Manifest]:
        """Those that can be read, by folder."""
        parents = dict.fromkeys(out.parent for out in self._outs)
        beside = [path for parent in parents for path in sorted(_listing(parent))[:NEIGHBORS_ASKED]]
        found: dict[Path, Manifest] = {}
        for out in dict.fromkeys([*self._outs, *beside]):
            if (out / MANIFEST_NAME).is_file():
                with contextlib.suppress(ShotError):
                    found[out] = read_manifest(out)
        return found

    def owners(self, out: Path, digests: Collection[str]) -> dict[str, list[_Owner]]:
        """Whose pictures these are, if not of `out`."""
        found: dict[str, list[_Owner]] = {}
        for other, manifest in self.manifests.items() if digests else ():
            if other == out.resolve():
                continue
            for record in (record for path in journal_paths(other) for record in read_journal(path)):
                if record.output_sha256 in digests and record.status in THERE:
                    owner = _Owner(other, manifest.name or manifest.shot, record.output, record.finished)
                    found.setdefault(record.output_sha256 or "", []).append(owner)
        return found


@dataclass(frozen=True)
class _Doubt:
    """Something that is worse than it looks if another result has the same picture."""

    record: FrameRecord
    finding: Finding   # if none has
    name: str          # of the file
    digest: str        # of the picture that is there
    whole: bool        # the record goes with the file: then both may be another shot's


@dataclass(frozen=True)
class _Shot:
    """The drawings as they are now."""

    folder: Path | None                  # None: they are not here
    frames: Sequence[FrameFile] = ()
    names: frozenset[str] = frozenset()  # all files in the folder

    def holds(self, record: FrameRecord) -> bool:
        """Whether the drawing of a record is still there, or nobody can tell."""
        return self.folder is None or record.source is None or record.source in self.names


class _Result:
    """One OUT, looked through from end to end."""

    def __init__(self, out: Path, expected: Expected, elsewhere: Elsewhere) -> None:
        self.out, self.expected, self.elsewhere = out, expected, elsewhere
        self.manifest = read_manifest(out)
        self.lines = {path.name: list(read_lines(path)) for path in journal_paths(out)}
        counting = [line.record for lines in self.lines.values() for line in lines if line.counts and line.record]
        self.records = merge_records(counting)
        self.pictures: dict[str, FrameRecord] = {}   # digest -> the first frame that has this picture
        for record in self.records:
            if record.output_sha256 and record.status in THERE:
                self.pictures.setdefault(record.output_sha256, record)
        self.compared: list[str] = []   # files of frames; the reading threads only append

    def report(self) -> Report:
        """Everything that is not as recorded."""
        shot = self._shot()
        findings = [*self._of_manifest(shot), *self._of_lines(shot)]
        if not any(line.record for lines in self.lines.values() for line in lines):
            findings.append(Finding(kind="journal", frame="", message=f"{self.out} has no record of any frame"))
        with ThreadPoolExecutor(READERS, thread_name_prefix="verify") as readers:
            looked_at = [one for found in readers.map(functools.partial(self._of_record, shot), self.records)
                         for one in found]
        owners = self.elsewhere.owners(self.out, {one.digest for one in looked_at if isinstance(one, _Doubt)})
        findings += [self._settled(one, owners) if isinstance(one, _Doubt) else one for one in looked_at]
        findings += [*self._of_doubles(), *self._uncolored(shot), *self._strays()]
        return Report(
            out=str(self.out),
            shot=self.manifest.name,
            frames=sum(record.status != "missing" for record in self.records),
            checked=len(self.compared),
            findings=tuple(findings),
        )

    # --- the manifest and the journals ---------------------------------------------------------------------------

    def _of_manifest(self, shot: _Shot) -> Iterator[Finding]:
        manifest, path = self.manifest, self.out / MANIFEST_NAME
        version = schema_version(manifest)
        if version > SCHEMA_VERSION:
            yield _note("manifest", f"{path.name} is of a newer colorcli ({manifest.tool}, schema {version}); "
                                    f"this one knows {SCHEMA_VERSION}, and does not see all of it")
        elif not is_as_written(self.out):
            yield Finding(kind="edited", frame="", message=f"{path.name} was changed by hand since it was written")
        if manifest.method and manifest.method != METHOD_VERSION:
            yield _note("version", f"the frames are of version {manifest.method} of the method; this colorcli has "
                                   f"{METHOD_VERSION}, and would color them again")
        newest = max((record.finished for record in self.records), default="")
        if manifest.updated and newest > manifest.updated:
            yield _note("journal", f"there are records newer than {path.name}: somebody still works, or was killed; "
                                   "`colorcli manifest merge` counts again")
        tools = Counter(record.tool for record in self.records if record.tool and record.tool != manifest.tool)
        for tool, count in sorted(tools.items()):
            yield _note("version", f"{count} frames were colored by colorcli {tool}, the last ones by {manifest.tool}")
        yield from self._of_folder()
        if self.expected.drawings:
            yield from self._of_inputs(shot)

    def _of_folder(self) -> Iterator[Finding]:
        """Whether the whole result took the place of another one."""
        here, was = self.out.resolve(), self.manifest.folder
        if not was or was == here.name:
            return
        other = self.elsewhere.manifests.get(here.parent / was) if is_file_name(was) else None
        if other is not None and other.folder == here.name and other.name != self.manifest.name:
            yield Finding(kind="swapped", frame="", belongs_to=was, message=(
                f"{here.name} is the result of the shot {self.manifest.name}, which was written as {was}; "
                f"and {was} is now that of the shot {other.name}"))
        else:
            yield _note("manifest", f"the folder was called {was} when it was written")

    def _of_lines(self, shot: _Shot) -> Iterator[Finding]:
        for name, lines in self.lines.items():
            torn = sum(1 for line in lines if line.record is None)
            if torn:
                yield _note("journal", f"{name} has {torn} torn or foreign lines")
            for number, line in enumerate(lines, 1):
                if line.record is not None and line.fault is not None:
                    text = f"line {number} of {name}, of {line.record.frame}, {line.fault}"
                    fatal = line.fault == OUTSIDE or not self._is_made_up_for(line.record, shot)
                    yield Finding(kind="edited", frame=line.record.frame, message=text, fatal=fatal)

    def _is_made_up_for(self, record: FrameRecord, shot: _Shot) -> bool:
        """Whether a record that does not count is not needed: its frame was recorded again, or is none of the shot's.

        The frame that it was of before somebody changed it is then looked for among the drawings.
        """
        recorded = any(record.key == other.key for other in self.records)
        return recorded or (shot.folder is not None and all(_key_of(frame) != record.key for frame in shot.frames))

    def _of_doubles(self) -> Iterator[Finding]:
        """Two frames with one file."""
        there = [record for record in self.records if record.output is not None and record.status in THERE]
        counts = Counter(record.output for record in there)
        for record in there:
            if counts[record.output] > 1:
                message = f"{record.output} is recorded for more than one frame, also for {record.frame}"
                yield Finding(kind="edited", frame=record.frame, message=message)

    # --- the frames ----------------------------------------------------------------------------------------------

    def _settled(self, doubt: _Doubt, owners: Mapping[str, Sequence[_Owner]]) -> Finding:
        """What is wrong with a file, now that other results were asked."""
        for owner in owners.get(doubt.digest, ()):
            # A drawing that two shots have, say a blank one, gives one picture; but only one record is of that moment.
            if doubt.whole and (owner.finished != doubt.record.finished or owner.shot == self.manifest.name):
                continue
            what = "and its record are" if doubt.whole else "is"
            return Finding(kind="swapped", frame=doubt.record.frame, belongs_to=f"{owner.out}/{owner.output}",
                           message=f"{doubt.name} {what} {owner.told(self.out)}")
        return doubt.finding

    def _of_record(self, shot: _Shot, record: FrameRecord) -> list[Finding | _Doubt]:
        """What is wrong with one frame. Runs in a reading thread."""
        found = functools.partial(Finding, frame=record.frame)
        if record.status == "missing":
            return [found(kind="gap", message=f"{record.frame} has no drawing", fatal=False)]
        is_drawn = shot.holds(record)
        if record.status == "failed" and not is_drawn:
            return []
        if record.status == "failed":
            reason = record.error.message if record.error else "no reason recorded"
            return [found(kind="failed", message=f"{record.frame} failed: {reason}")]
        if record.output is None:
            return [found(kind="edited", message=f"{record.frame} is recorded as done, but without a file")]
        # Whoever takes a drawing out of the shot takes its picture as well.
        files = [(record.output, record.output_sha256), *record.outputs.items()]
        findings = [one for name, digest in files for one in self._of_file(record, name, digest, is_drawn)]
        if not is_drawn:
            gone = f"the drawing of {record.output} is not there any more"
            return [found(kind="changed", message=gone, fatal=False), *findings]
        return findings or [*self._of_making(record), *self._of_drawing(shot, record)]

    def _of_file(
        self, record: FrameRecord, name: str, digest: str | None, is_needed: bool
    ) -> Iterator[Finding | _Doubt]:
        """Whether a file is the one that was written. is_needed: it has to be there."""
        path = self.out / name
        try:
            there = file_digest(path) if path.is_file() else None
        except OSError as error:
            reason = error.strerror or str(error)
            yield Finding(kind="missing", frame=record.frame, message=f"{name} cannot be read: {reason}")
            return
        if there is None:
            yield Finding(kind="missing", frame=record.frame, message=f"{name} is recorded, but not there",
                          fatal=is_needed)
            return
        self.compared.append(name)
        if there == digest:
            return
        mine = self.pictures.get(there)
        if mine is not None and mine.output is not None:
            yield Finding(kind="swapped", frame=record.frame, belongs_to=mine.output,
                          message=f"{name} is the picture of {mine.output}")
            return
        altered = Finding(kind="altered", frame=record.frame, message=f"{name} is not the file that was written")
        yield _Doubt(record, altered, name, there, whole=False)

    def _of_making(self, record: FrameRecord) -> Iterator[Finding]:
        """By what a frame was colored, where that is not what the rest of the shot was."""
        manifest = self.manifest
        found = functools.partial(Finding, frame=record.frame)
        if manifest.settings_sha256 and record.settings_sha256 != manifest.settings_sha256:
            kind, how = _difference(manifest, manifest.earlier_settings.get(record.settings_sha256 or ""))
            yield found(kind=kind, message=f"{record.output} was colored {how}")
        elif manifest.key_sha256 and record.key_sha256 and record.key_sha256 != manifest.key_sha256:
            yield found(kind="key", message=f"{record.output} was colored from another key than the rest of the shot")
        elif not self._follows(record):
            # A record of the first version does not name its key.
            told = "" if record.key_sha256 else "it was colored from another key, or "
            yield found(kind="edited" if record.key_sha256 else "key",
                        message=f"{record.output}: {told}its record was changed: its fingerprint is of other content")

    def _follows(self, record: FrameRecord) -> bool:
        """Whether the fingerprint is that of what the record says, as far as that can be told."""
        key = record.key_sha256 or self.manifest.key_sha256
        parts = (record.settings_sha256, record.pixels_sha256, record.format, record.fingerprint)
        if not key or None in parts:
            return True
        settings, pixels, file_format, recorded = (part or "" for part in parts)
        if not record.key_sha256 and any(_is_on(self.manifest.settings, group) for group in ("steady", "warm_start")):
            return True   # the first version did not record the drawings around
        print_ = fingerprint(
            settings, key, pixels, record.masks_sha256, file_format, record.before_sha256, record.around_sha256
        )
        return print_ == recorded

    def _of_drawing(self, shot: _Shot, record: FrameRecord) -> Iterator[Finding | _Doubt]:
        """Whether the drawing is still the one that was colored."""
        if shot.folder is None or record.source is None or record.source_sha256 is None or not self.expected.drawings:
            return
        path = shot.folder / record.source
        try:
            if file_digest(path) == record.source_sha256 or _shows(path, record.pixels_sha256):
                return   # it may have been saved anew with the same picture
        except OSError as error:
            yield _note("changed", f"{path} cannot be read: {error.strerror}", record.frame)
            return
        except FrameError as error:
            yield _note("changed", f"{record.source} cannot be compared: {error.message}", record.frame)
            return
        changed = _note("changed", f"{record.source} was drawn anew since it was colored", record.frame)
        yield _Doubt(record, changed, record.output or "", record.output_sha256 or "", whole=True)

    # --- what the frames were made of ----------------------------------------------------------------------------

    def _shot(self) -> _Shot:
        """The drawings of the shot as they are now."""
        folder = self.out / self.manifest.shot
        if not self.expected.drawings or not folder.is_dir():
            return _Shot(None)
        is_key = key_test([str(self.out / entry.path) for entry in self.manifest.keys])
        try:
            names = frozenset(path.name for path in _listing(folder))
            asked = [name for name in self.manifest.request.shots if is_file_name(name)]
            if not asked:
                frames, _, _ = find_frames(folder, is_key=is_key, names=sorted(names))
                return _Shot(folder, frames, names)
            shots = [shot for name in asked for shot in find_shots(folder / name, is_key=is_key)]
            return _Shot(folder, [frame for shot in shots for frame in shot.frames], names)
        except ColorcliError:
            return _Shot(folder, (), names)

    def _of_inputs(self, shot: _Shot) -> Iterator[Finding]:
        """Keys that are not what they were; drawings that are not here to be compared."""
        if shot.folder is None:
            yield _note("changed", f"the drawings are not here ({self.manifest.shot}): they were not compared")
        pictures: list[tuple[str, FileEntry]] = [("the key", entry) for entry in self.manifest.keys]
        if self.manifest.background is not None:
            pictures.append(("the background", self.manifest.background))
        for what, entry in pictures:
            path = self.out / entry.path
            if not path.is_file():
                yield _note("changed", f"{what} {entry.path} is not there any more")
                continue
            try:
                same = entry.sha256 is None or _shows(path, entry.sha256)
            except FrameError as error:
                yield _note("changed", f"{what} {entry.path} cannot be compared: {error.message}")
                continue
            if not same:
                yield _note("changed", f"{what} {entry.path} is another picture since: a run would color all again")

    def _uncolored(self, shot: _Shot) -> Iterator[Finding]:
        """Drawings that no record tells of: a part of the shot that never ran."""
        recorded = {record.key for record in self.records}
        faulty = {line.record.key for lines in self.lines.values() for line in lines if line.record is not None}
        wanted = self._wanted()
        for frame in shot.frames:
            key = _key_of(frame)
            if key in recorded or key in faulty:
                continue
            fatal = wanted is None or frame.number in wanted
            yield Finding(kind="uncolored", frame=frame.stem, message=f"{frame.name} was never colored", fatal=fatal)

    def _wanted(self) -> frozenset[int] | None:
        """The numbers that have to be there; None: all drawings."""
        if self.expected.frames is not None:
            return self.expected.frames.numbers
        wanted: set[int] = set()
        for run in self.manifest.runs:
            if run.frames == "":
                return None
            with contextlib.suppress(UsageError):
                wanted |= FrameRange.parse(run.frames).numbers if run.frames else frozenset()
        return frozenset(wanted)

    def _strays(self) -> Iterator[Finding]:
        """Files in OUT that nothing is known of; also in the folders of its layers."""
        lines = [line.record for lines in self.lines.values() for line in lines if line.record is not None]
        known = {path for record in (*self.records, *lines) for path in (record.output, *record.outputs) if path}
        suffixes = {Path(path).suffix for path in known}
        folders = sorted({Path(path).parent for path in known if is_inside(path)} | {Path()})
        files = {(folder / path.name).as_posix(): path for folder in folders for path in _listing(self.out / folder)}
        for name, path in sorted(files.items()):
            if TEMPORARY.fullmatch(path.name):
                yield _note("stray", f"{name} was left by a process that was killed, or still writes", path.stem)
            elif path.suffix in suffixes and name not in known and not path.name.startswith(".") and path.is_file():
                yield _note("stray", f"{name} is in no record", path.stem)


def _note(kind: FindingKind, message: str, frame: str = "") -> Finding:
    return Finding(kind=kind, frame=frame, message=message, fatal=False)


def _listing(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _key_of(frame: FrameFile) -> FrameKey:
    """By what the records of a drawing are known."""
    return frame_key(frame.sequence, frame.number, frame.stem)


def _shows(path: Path, digest: str | None) -> bool:
    """Whether a picture is the one with this digest. Raises FrameError if it cannot be read, or is too large."""
    return picture_digest(read_picture(path)) == digest


def _is_on(settings: Mapping[str, Any], group: str) -> bool:
    values = settings.get(group)
    return isinstance(values, Mapping) and bool(values.get("on"))


def _difference(manifest: Manifest, other: SettingsEntry | None) -> tuple[FindingKind, str]:
    """What kind of difference it is, and "with other settings: ..."."""
    if other is None:
        return "settings", "with other settings, weights or method than the rest of the shot"
    if other.method != manifest.method:
        return "version", f"by version {other.method} of the method ({other.tool}), the shot by {manifest.method}"
    weights = [{model.used_for: model for model in models} for models in (other.models, manifest.models)]
    for used_for in dict.fromkeys([*weights[0], *weights[1]]):
        there, here = (models.get(used_for) for models in weights)
        if (there and there.sha256) != (here and here.sha256):
            named = [f"{model.name} {model.sha256[:12]}" if model else "none" for model in (there, here)]
            return "weights", f"with other weights for {used_for}: {named[0]}, not {named[1]}"
    before, after = flattened(other.settings), flattened(manifest.settings)
    names = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    told = [f"{name} {before.get(name)}, not {after.get(name)}" for name in names[:DIFFERENCES_TOLD]]
    more = [f"and {len(names) - DIFFERENCES_TOLD} more"] if len(names) > DIFFERENCES_TOLD else []
    return "settings", "with other settings" + (": " + "; ".join([*told, *more]) if told else "")
