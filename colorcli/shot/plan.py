"""From what the user asked for to a list of frames to color: every name checked, nothing loaded."""

import errno
import hashlib
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Literal

from colorcli.errors import ColorcliError, FrameError, OutputError, ShotError, UsageError
from colorcli.images import MAX_PIXELS, PixelFormat, extension_of, format_named, read_size
from colorcli.model.lora_file import check_loras
from colorcli.model.onnx_networks import check_networks, network_files
from colorcli.presets import Preset
from colorcli.shot.frames import (
    Chunk,
    FoundShot,
    FrameFile,
    FrameRange,
    find_frames,
    find_shots,
    missing_numbers,
    numbers_as_range,
    suffixes_text,
)
from colorcli.shot.key_files import SHOT_FIELD, find_background, find_key_files, find_palette_file, key_test
from colorcli.shot.layer_files import check_layers, layer_files
from colorcli.shot.manifest import FrameKey, frame_key

LONGEST_JOURNAL_PART = 60   # characters of a frame range that go into a file name


@dataclass(frozen=True)
class ShotRequest:
    """What the user asked for, as typed."""

    shots: tuple[str, ...]             # folders, trees, patterns, pictures
    refs: tuple[str, ...] = ()         # keys, folders of keys, or patterns with {shot}; none: key.* beside the frames
    out: Path | None = None            # None: <SHOT>_color beside the shot
    frames: str | None = None          # "1-100x2,120"
    chunk: str | None = None           # "3/10"
    masks: tuple[Path, ...] = ()       # folders of masks, one for each character
    overwrite: bool = False            # color again what is already there
    thorough: bool = False             # read what is there once more, whatever its size and times say
    max_pixels: int = MAX_PIXELS       # a frame, a mask or a key with more is not decoded
    preset: Preset = field(default_factory=Preset)
    preset_name: str = "cel"
    only: tuple[str, ...] = ()         # names of shots in a tree; none: all of them


@dataclass(frozen=True)
class Problem:
    """Something a person should know before the render."""

    severity: Literal["warning", "error"]  # error: this frame cannot be colored
    kind: str                              # frame, size, missing, mask, ignored, range, network
    message: str
    hint: str | None = None


@dataclass(frozen=True)
class FrameJob:
    """One frame to color."""

    number: int | None                   # None: a picture without a number
    sequence: str                        # what stands before the number, "walk."
    source: Path
    output: Path
    size: tuple[int, int] | None = None  # width, height in pixels; None: the file cannot be read
    masks: tuple[Path, ...] = ()         # one for each folder of masks that has this frame
    # For warm starts the frame before it in the whole shot, asked for or not; None: there is none, or a gap. Not
    # compared: a shot is one long chain of them.
    before: "FrameJob | None" = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The frame's name without its extension, walk.0001."""
        return self.source.stem

    @property
    def key(self) -> FrameKey:
        """What its records are known by."""
        return frame_key(self.sequence, self.number, self.name)


@dataclass(frozen=True)
class MissingFrame:
    """A number that was asked for, or that a sequence leaves out."""

    number: int
    sequence: str  # what stands before the number, "walk."


@dataclass(frozen=True)
class ShotPlan:
    """One folder of frames and all that coloring it needs."""

    name: str
    folder: Path                       # where the frames lie
    out: Path                          # where their colors go
    keys: tuple[Path, ...]
    key_masks: tuple[Path, ...]        # masks named like the (first) key
    jobs: tuple[FrameJob, ...]         # in order
    missing: tuple[MissingFrame, ...]
    problems: tuple[Problem, ...]
    request: ShotRequest
    chunk: Chunk | None = None
    range: FrameRange | None = None
    background: Path | None = None              # the picture that `background.image` names
    background_masks: tuple[Path, ...] = ()     # masks named like the background
    palette_file: Path | None = None            # the colors that `finish.palette_file` names
    # For steady colors: all numbered frames of the shot, asked for or not, sequence by sequence.
    sequences: tuple[tuple[FrameJob, ...], ...] = ()

    @property
    def journal_name(self) -> str:
        """The journal that this process writes; processes with other frames or chunks of one shot write others."""
        parts = []
        if self.range is not None:
            text = self.range.text.replace(",", "_")
            if len(text) > LONGEST_JOURNAL_PART:
                text = f"{text[:LONGEST_JOURNAL_PART]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
            parts.append(text)
        if self.chunk is not None:
            parts.append(f"chunk{self.chunk.index}of{self.chunk.count}")
        return ".".join(["frames", *parts, "jsonl"])

    @property
    def first_and_last(self) -> tuple[Path, Path] | None:
        """Where the first and the last frame go, to show the names as they will be."""
        return (self.jobs[0].output, self.jobs[-1].output) if self.jobs else None


@dataclass(frozen=True)
class Survey:
    """The plans, and what stands in the way of the others: what a dry run shows."""

    plans: tuple[ShotPlan, ...]
    errors: tuple[ColorcliError, ...]


def plan_shots(request: ShotRequest) -> list[ShotPlan]:
    """Check every name of a request and list the frames to color.

    Raises UsageError (options that make no sense, OUT in SHOT, two frames with one output name), ShotError (a shot is
    missing or empty, or none of its frames was asked for), KeyImageError (also for a background), PresetError (a
    palette holds no colors), WeightsError (networks, LoRAs), MissingExtraError, OutputError (OUT cannot be written).
    """
    survey = survey_shots(request)
    if survey.errors:
        raise survey.errors[0]
    return list(survey.plans)


def plan_requests(requests: Sequence[ShotRequest]) -> list[ShotPlan]:
    """Plan several requests that are colored in one run. Raises what `plan_shots` raises, and what is wrong between
    them: two frames with one output name, two settings in one folder."""
    plans = [plan for request in requests for plan in plan_shots(request)]
    if len(requests) > 1:
        for clash in (*_clashes(plans), *_mixtures(plans)):
            raise clash
    return plans


def survey_shots(request: ShotRequest) -> Survey:
    """Like `plan_shots`, but what is wrong with one shot is listed and does not hide what is wrong with the others.

    Raises UsageError only for options that make no sense whatever the shots are.
    """
    if not request.shots:
        raise UsageError("no shot was given", hint="colorcli SHOT --ref KEY")
    frame_range = FrameRange.parse(request.frames) if request.frames is not None else None
    chunk = Chunk.parse(request.chunk) if request.chunk is not None else None
    errors: list[ColorcliError] = [error for folder in request.masks if (error := _mask_folder_error(folder))]
    for check in (check_networks, check_loras, check_layers):
        try:
            check(request.preset)
        except ColorcliError as error:
            errors.append(error)
    found: list[tuple[FoundShot, Path]] = []
    for text in dict.fromkeys(request.shots):
        try:
            shots = find_shots(text, is_key=key_test(_named_pictures(request)), leave_out=_no_shots(request))
            if request.only:
                shots = _only(shots, request.only)
            if frame_range is not None:
                _require_some(shots, frame_range)
            found += [(shot, _out_folder(request, shot)) for shot in shots]
        except ColorcliError as error:
            errors.append(error)
    roots = {shot.root: shot.root.resolve() for shot, _ in found}
    plans: list[ShotPlan] = []
    read_masks = {folder: _masks_by_name(folder) for folder in request.masks if folder.is_dir()}
    for shot, out in found:
        try:
            _refuse_out_in_shot(out, shot, roots)
            _require_writable(out)
            plans.append(_plan(request, shot, out, frame_range, chunk, read_masks))
        except ColorcliError as error:
            errors.append(error)
    errors += _clashes(plans)
    if plans:
        plans[0] = replace(plans[0], problems=(*_unused_networks(request.preset), *plans[0].problems))
    return Survey(tuple(plans), tuple(errors))


def _unused_networks(preset: Preset) -> Iterator[Problem]:
    """Networks that a preset names and does not use: somebody may wait for what they would do."""
    masks, lines = preset.masks, preset.lines
    used = network_files(preset)
    for key, name in {"masks.network": masks.network, "masks.key_network": masks.key_network}.items():
        if name is not None and key not in used:
            yield Problem("warning", "network", f"{key} is not used, for masks.source is {masks.source}",
                          "--set masks.source=network")
    if lines.network is not None and "lines.network" not in used:
        key = "mode" if lines.mode != "extract" else "extractor"
        yield Problem("warning", "network", f"lines.network is not used, for lines.{key} is {getattr(lines, key)}",
                      f"--set lines.{key}={'extract' if key == 'mode' else 'network'}")


def _named_pictures(request: ShotRequest) -> tuple[str, ...]:
    """The pictures that a request names as something else than a frame."""
    image = request.preset.background.image
    return request.refs if image is None else (*request.refs, image)


def _no_shots(request: ShotRequest) -> tuple[Path, ...]:
    """Folders that may lie in a tree of shots and hold no frames: masks, and keys."""
    return (*request.masks, *(Path(ref) for ref in request.refs if SHOT_FIELD not in ref and Path(ref).is_dir()))


def _only(shots: Sequence[FoundShot], names: Sequence[str]) -> list[FoundShot]:
    """Those shots of a tree that are asked for by name. Raises ShotError if one is not there."""
    there = {shot.name: shot for shot in shots}
    for name in names:
        if name not in there:
            near = get_close_matches(name, there, n=1)
            raise ShotError(
                f"{shots[0].root} has no shot {name}",
                hint=f"did you mean {near[0]}?" if near else f"it has {', '.join(list(there)[:4])}",
            )
    return [there[name] for name in dict.fromkeys(names)]


def _require_some(shots: Sequence[FoundShot], frame_range: FrameRange) -> None:
    """Raise ShotError if no shot of a tree has any of these frames."""
    if any(frame.number in frame_range.numbers for shot in shots for frame in shot.frames):
        return
    shot = shots[0]
    there = shot.describe_range()
    if len(shots) > 1:
        there = "; ".join(f"{one.name}: {one.describe_range()}" for one in shots[:4])
    raise ShotError(
        f"{shot.root} has no frame of {frame_range.text}; it has {there}",
        hint=f"ask for frames that are there, as in --frames {_an_example(shots)}",
    )


def _an_example(shots: Sequence[FoundShot]) -> str:
    numbers = [frame.number for frame in shots[0].frames if frame.number is not None]
    return f"{min(numbers)}-{max(numbers)}" if numbers else "(pictures without a number: leave --frames out)"


def _out_folder(request: ShotRequest, shot: FoundShot) -> Path:
    """Where the colors of a shot go; the tree of the shot is mirrored there."""
    if request.out is None:
        root = shot.root.resolve()
        if not root.name:
            raise UsageError(f"{shot.root} has no folder beside it for the colors", hint="say where they go: -o OUT")
        # A path that the user typed stays as typed ("shots/walk" gives "shots/walk_color"), "." needs its real name.
        base = shot.root if shot.root.name not in ("", "..") else root
        return base.with_name(f"{root.name if base is root else base.name}_color") / shot.relative
    if len(dict.fromkeys(request.shots)) == 1:
        return request.out / shot.relative
    return request.out / shot.root.resolve().name / shot.relative


def _refuse_out_in_shot(out: Path, shot: FoundShot, roots: Mapping[Path, Path]) -> None:
    """Raise UsageError if the colors would go into an input folder. roots: as they were named -> their real paths."""
    real = out.resolve()
    for root in dict.fromkeys([shot.root, *roots]):
        if real == roots[root]:
            raise UsageError(
                f"OUT {out} is the shot itself, and drawings are never written over",
                hint="leave -o out, or name another folder",
            )
        if real.is_relative_to(roots[root]):
            raise UsageError(f"OUT {out} lies inside the shot {root}", hint=f"put it beside the shot: {root}_color")


def _require_writable(out: Path) -> None:
    """Raise OutputError if OUT is no folder, or the folder to create it in cannot be written. Writes nothing."""
    existing = next(path for path in [out, *out.absolute().parents] if path.exists() or path.is_symlink())
    if not existing.is_dir():
        raise OutputError(f"OUT {existing} is a file, not a folder", hint="name another folder with -o")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{existing} cannot be written", hint="check its permissions, or name another folder with -o")


def outputs_there(plan: ShotPlan) -> frozenset[str]:
    """The names in OUT, from one look at the folder: to ask for ten thousand files one by one takes a file server long.

    Empty if there is no such folder, or it cannot be listed.
    """
    try:
        return frozenset(path.name for path in plan.out.iterdir())
    except OSError:
        return frozenset()


def make_out_folder(out: Path) -> None:
    """Create OUT. Raises OutputError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error))
        raise OutputError(f"{out} cannot be created: {reason}", hint="name another folder with -o") from error


def _plan(
    request: ShotRequest,
    shot: FoundShot,
    out: Path,
    frame_range: FrameRange | None,
    chunk: Chunk | None,
    masks: dict[Path, "_MaskFolder"],
) -> ShotPlan:
    keys = find_key_files(request.refs, shot, request.max_pixels)
    background = find_background(request.preset.background.image, shot, request.max_pixels)
    palette_file = find_palette_file(request.preset.finish.palette_file, shot)
    frames = [frame for frame in shot.frames if frame_range is None or frame.number in frame_range.numbers]
    missing = list(_missing(shot, frames, frame_range))
    problems: list[Problem] = []
    if not frames and frame_range is not None:
        text = f"{shot.name} has no frame of {frame_range.text}; it has {shot.describe_range()}"
        problems.append(Problem("warning", "range", text))
    if chunk is not None:
        frames, missing = _part(frames, missing, chunk)
    folders = [(folder, found.below(shot.relative)) for folder, found in masks.items()]
    jobs: list[FrameJob] = []
    for frame in frames:
        size: tuple[int, int] | None = None
        try:
            size = read_size(frame.path, request.max_pixels)
        except FrameError as error:
            problems.append(Problem("error", "frame", error.message, error.hint))
        found_masks: list[Path] = []
        for folder, listing in folders:
            mask = listing.mask_of(frame)
            if mask is None:
                text = f"{frame.name} has no mask in {folder}"
                problems.append(Problem("warning", "mask", text, "the other masks are used; without any it is found"))
            else:
                found_masks.append(mask)
        output = out / output_name(frame.path, request.preset)
        jobs.append(FrameJob(frame.number, frame.sequence, frame.path, output, size, tuple(found_masks)))
    sequences: list[list[FrameJob]] = []
    if request.preset.warm_start.on or request.preset.steady.on:
        sequences = _whole_sequences(jobs, shot, [listing for _, listing in folders])
    if request.preset.warm_start.on:
        jobs = in_a_chain(jobs, sequences)
    problems += _size_problems(jobs)
    problems += _missing_problems(missing)
    problems += _ignored_problems(shot)
    key_masks = tuple(mask for _, listing in folders if (mask := listing.named.get(keys[0].stem)) is not None)
    if key_masks and len(keys) > 1:
        problems.append(Problem("warning", "mask", "masks of keys are not used when there is more than one key"))
        key_masks = ()
    background_masks: tuple[Path, ...] = ()
    if background is not None:
        named = (listing.named.get(background.stem) for _, listing in folders)
        background_masks = tuple(mask for mask in named if mask is not None and mask != background)
    return ShotPlan(
        name=shot.name,
        folder=shot.folder,
        out=out,
        keys=keys,
        key_masks=key_masks,
        jobs=tuple(jobs),
        missing=tuple(missing),
        problems=tuple(problems),
        request=request,
        chunk=chunk,
        range=frame_range,
        background=background,
        background_masks=background_masks,
        palette_file=palette_file,
        sequences=tuple(tuple(sequence) for sequence in sequences),
    )


def _whole_sequences(
    jobs: Sequence[FrameJob], shot: FoundShot, masks: Sequence["_MaskFolder"]
) -> list[list[FrameJob]]:
    """All numbered frames of a shot in order, sequence by sequence, whatever part of it was asked for."""
    asked = {job.source: job for job in jobs}

    def job_of(frame: FrameFile) -> FrameJob:
        found = tuple(mask for listing in masks if (mask := listing.mask_of(frame)) is not None)
        return asked.get(frame.path) or FrameJob(frame.number, frame.sequence, frame.path, frame.path, masks=found)

    return [[job_of(frame) for frame in members if frame.number is not None] for members in shot.sequences.values()]


def in_a_chain(jobs: Sequence[FrameJob], sequences: Sequence[Sequence[FrameJob]]) -> list[FrameJob]:
    """The jobs, each with the frame before it. sequences: all frames of the shot, as `ShotPlan.sequences`."""
    asked = {job.source: job for job in jobs}
    for sequence in sequences:
        gaps = missing_numbers([job.number for job in sequence if job.number is not None])
        before: FrameJob | None = None
        for job in sequence:
            number = job.number or 0
            if before is not None and bisect_left(gaps, number) != bisect_left(gaps, before.number or 0):
                before = None
            before = replace(job, before=before)
            if job.source in asked:
                asked[job.source] = before
    return [asked[job.source] for job in jobs]


def output_name(source: Path, preset: Preset) -> str:
    """The name of a colored frame: the drawing's own, with another extension if another format was asked for."""
    name = preset.output.format
    if name == "same":
        return source.name
    suffix = extension_of(format_named(name, PixelFormat("png", "uint8")))
    same_kind = [kinds for kinds in ({".tif", ".tiff"}, {".jpg", ".jpeg"}) if suffix in kinds]
    if source.suffix.lower() == suffix or (same_kind and source.suffix.lower() in same_kind[0]):
        return source.name
    return source.stem + suffix


def _part(
    frames: Sequence[FrameFile], missing: Sequence[MissingFrame], chunk: Chunk
) -> tuple[list[FrameFile], list[MissingFrame]]:
    """One chunk of the frames, and the gaps that follow its frames (those before the first go to the first chunk)."""
    first, end = chunk.bounds(len(frames))
    part = list(frames[first:end])
    starts = [(frame.sequence, frame.number or 0) for frame in frames]
    owners = [max(bisect_left(starts, (gap.sequence, gap.number)) - 1, 0) for gap in missing]
    return part, [gap for gap, owner in zip(missing, owners, strict=True) if first <= owner < end]


def _missing(shot: FoundShot, frames: Sequence[FrameFile], frame_range: FrameRange | None) -> Iterator[MissingFrame]:
    """Numbers asked for that no sequence has; without --frames, the numbers that each sequence leaves out."""
    sequences = shot.sequences
    if frame_range is not None:
        if not frames:
            return  # already said for the whole shot
        there = {frame.number for frame in shot.frames}
        sequence = next(iter(sequences))
        yield from (MissingFrame(number, sequence) for number in sorted(frame_range.numbers) if number not in there)
        return
    for sequence, members in sequences.items():
        for number in missing_numbers([frame.number for frame in members if frame.number is not None]):
            yield MissingFrame(number, sequence)


def _missing_problems(missing: Sequence[MissingFrame]) -> Iterator[Problem]:
    by_sequence: dict[str, list[int]] = {}
    for gap in missing:
        by_sequence.setdefault(gap.sequence, []).append(gap.number)
    for sequence, numbers in by_sequence.items():
        noun = "frame is" if len(numbers) == 1 else "frames are"
        yield Problem("warning", "missing", f"{len(numbers)} {noun} missing: {sequence}{numbers_as_range(numbers)}")


def _size_problems(jobs: Sequence[FrameJob]) -> Iterator[Problem]:
    """Frames that are not as large as most of their sequence: they are colored at their own size, but look odd."""
    sizes: dict[str, Counter[tuple[int, int]]] = {}
    for job in jobs:
        if job.size is not None and job.number is not None:
            sizes.setdefault(job.sequence, Counter())[job.size] += 1
    usual = {sequence: counts.most_common(1)[0][0] for sequence, counts in sizes.items()}
    for job in jobs:
        if job.size is not None and job.number is not None and job.size != usual[job.sequence]:
            here, there = (f"{width}x{height}" for width, height in (job.size, usual[job.sequence]))
            yield Problem(
                "warning",
                "size",
                f"{job.source.name} is {here}, but this shot is {there}",
                "it is colored at its own size; take it out of the folder, or resize it, if that is not wanted",
            )


def _ignored_problems(shot: FoundShot) -> Iterator[Problem]:
    if shot.ignored:
        more = f" and {len(shot.ignored) - 3} more" if len(shot.ignored) > 3 else ""
        text = f"passed over in {shot.folder}: {', '.join(shot.ignored[:3])}{more}"
        yield Problem("warning", "ignored", text, f"frames are {suffixes_text()}")


def _clashes(plans: Sequence[ShotPlan]) -> Iterator[UsageError]:
    """Outputs that would take each other's place, or the place of a file that is read."""
    real_folder = cache(Path.resolve)

    def real(path: Path) -> Path:
        return real_folder(path.parent) / path.name

    inputs = {real(path) for plan in plans for job in plan.jobs for path in (job.source, *job.masks)}
    inputs |= {real(path) for plan in plans for path in (*plan.keys, *plan.key_masks)}
    inputs |= {real(plan.background) for plan in plans if plan.background is not None}
    taken: dict[Path, FrameJob] = {}
    for plan in plans:
        for job in plan.jobs:
            path = real(job.output)
            if path in inputs:
                yield UsageError(
                    f"{job.output} would be written over, and it is an input", hint="name another folder with -o"
                )
            elif path in taken:
                yield UsageError(
                    f"{taken[path].source} and {job.source} would both become {job.output}",
                    hint="color them into two folders, or leave --format out",
                )
            taken[path] = job
    for plan in plans:
        for job in plan.jobs:
            for file in layer_files(job.output.name, plan.request.preset):
                path = real(plan.out / file.path)
                if path in inputs or path in taken:
                    what = "an input" if path in inputs else f"what becomes of {taken[path].source}"
                    yield UsageError(
                        f"a layer of {job.source} would be written over {what}: {plan.out / file.path}",
                        hint="color them into two folders, or name another one with -o",
                    )
                taken[path] = job


def _mixtures(plans: Sequence[ShotPlan]) -> Iterator[UsageError]:
    """Folders that would hold frames of different settings: nobody could tell from the manifest which is right."""
    presets: dict[Path, Preset] = {}
    for plan in plans:
        if presets.setdefault(plan.out.resolve(), plan.request.preset) != plan.request.preset:
            yield UsageError(
                f"{plan.out} would hold frames of {plan.name} that are colored with different settings",
                hint="give each of its entries in the list an `out` of its own",
            )


def _mask_folder_error(folder: Path) -> ColorcliError | None:
    if folder.is_dir():
        return None
    return UsageError(f"there is no folder of masks {folder}", hint="--masks takes a folder with one mask a frame")


@dataclass(frozen=True)
class _MaskFolder:
    """The masks of one character: by name, and by number where that is unambiguous."""

    folder: Path
    named: dict[str, Path]
    numbered: dict[int, Path]

    def below(self, relative: Path) -> "_MaskFolder":
        """The masks of one shot of a tree: from the folder of the same name, if there is one."""
        if relative != Path() and (self.folder / relative).is_dir():
            return _masks_by_name(self.folder / relative)
        return self

    def mask_of(self, frame: FrameFile) -> Path | None:
        """The mask with the frame's name, else the only one with its number."""
        if frame.stem in self.named:
            return self.named[frame.stem]
        return self.numbered.get(frame.number) if frame.number is not None else None


def _masks_by_name(folder: Path) -> _MaskFolder:
    frames, _, keys = find_frames(folder)
    numbers = Counter(frame.number for frame in frames if frame.number is not None)
    named = {frame.stem: frame.path for frame in frames} | {Path(name).stem: folder / name for name in keys}
    numbered = {frame.number: frame.path for frame in frames if frame.number is not None and numbers[frame.number] == 1}
    return _MaskFolder(folder, named, numbered)
