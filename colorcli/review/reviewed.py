"""A finished shot, read again for a person to judge: its frames before and after, measured, with what was recorded."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from math import gcd
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from colorcli.errors import ColorcliError, FrameError, ShotError
from colorcli.files import file_digest
from colorcli.finish.repaint import repaint
from colorcli.images import Picture, picture_digest, read_picture
from colorcli.prepare.palette import Palette, shadows_of
from colorcli.prepare.palette_file import read_swatches, swatches_of
from colorcli.presets import Preset
from colorcli.review.measure import Change, Look, change_between, key_palette, look_at
from colorcli.review.pictures import Album, Copy, page_copy, thumbnail
from colorcli.review.worth import Measured, Reason, worth_a_look
from colorcli.shot.keys import key_sheet, read_mask
from colorcli.shot.layer_files import LAYERS_FOLDER
from colorcli.shot.manifest import (
    MANIFEST_NAME,
    THERE,
    FrameRecord,
    Manifest,
    Status,
    read_manifest,
    read_records,
    results_in,
)

Float = NDArray[np.float32]

PAGE_PX = 960            # longer side of the page's pictures
MANY_FRAMES = {600: 960, 1500: 640}   # so many frames of a page -> how large their pictures are at most
SMALLEST_PAGE_PX = 480   # with more than that
LONGEST_HOLD = 12        # a frame stands for the numbers that are left out behind it, up to so many


@dataclass(frozen=True)
class ReviewedFrame:
    """One frame of the page."""

    measured: Measured
    before: int | None = None    # number of its drawing in the album; None: it cannot be read
    after: int | None = None     # of its result
    thumb: bytes | None = None   # WebP
    layers: Mapping[str, int | None] = field(default_factory=dict)   # number of each layer's picture
    size: tuple[int, int] | None = None   # width, height of its result in pixels
    ticks: int = 1               # numbers of the shot during which it is shown
    reasons: tuple[Reason, ...] = ()

    @property
    def record(self) -> FrameRecord:
        """What became of it."""
        return self.measured.record

    @property
    def change(self) -> Change | None:
        """From the frame before it."""
        return self.measured.change


@dataclass(frozen=True)
class PaletteColor:
    """A color of the key, and how much it was used."""

    color: Float            # (3,) as the frames have it
    in_key: Float | None    # (3,) as the key has it, where the production's own palette has another
    key_share: float        # of the key's character
    used: float             # mean share of the frames' characters
    used_least: float
    used_most: float


@dataclass(frozen=True)
class ReviewedShot:
    """One shot of the page."""

    name: str
    out: Path
    drawings: Path | None                # the folder of the frames before; None: it is not there
    manifest: Manifest
    frames: tuple[ReviewedFrame, ...]
    first: tuple[int, ...]               # places of the frames that are worth a look, the most urgent first
    key: int | None                      # number of the key in the album
    palette: tuple[PaletteColor, ...]    # the most frequent in the key first
    notes: tuple[str, ...]               # what could not be looked at, and why

    def count(self, *statuses: Status) -> int:
        """How many frames ended so."""
        return sum(1 for frame in self.frames if frame.record.status in statuses)

    @property
    def there(self) -> int:
        """How many frames have a picture."""
        return self.count(*THERE)

    @property
    def flicker(self) -> float | None:
        """Mean change of a channel from frame to frame, 8-bit levels; None: no two neighbors could be compared."""
        return _mean([frame.change.flicker for frame in self.frames if frame.change is not None])

    @property
    def repainted(self) -> float | None:
        """Mean share of the character that has another color than in the frame before, 0..1; None as for `flicker`."""
        return _mean([frame.change.jumped for frame in self.frames if frame.change is not None])

    @property
    def palette_distance(self) -> float | None:
        """Mean CIEDE2000 of the frames' colors to the nearest color of the key; None: there is nothing to compare."""
        distances = [frame.measured.look.palette_distance for frame in self.frames if frame.measured.look is not None]
        return _mean([distance for distance in distances if distance is not None])


@dataclass(frozen=True)
class _Places:
    """Where the files of a shot lie."""

    out: Path
    drawings: Path
    masks: tuple[Mapping[str, Path], ...] = ()   # by the name without extension, for each character


@dataclass(frozen=True)
class _Shown:
    """A picture on its way into the album."""

    digest: str
    copy: Copy | None   # None: it was there already


@dataclass
class _Seen:
    """What was made of a frame alone."""

    before: _Shown | None = None
    after: _Shown | None = None
    layers: dict[str, _Shown] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    thumb: bytes | None = None
    look: Look | None = None
    trouble: str | None = None
    unread: str | None = None    # why there is no drawing


def find_outs(folder: Path) -> list[Path]:
    """Find the folders that colorcli has written at or below a folder, by name. Raises ShotError if there is none."""
    if not folder.is_dir():
        raise ShotError(f"there is no folder {folder}", hint="give a folder that colorcli has written")
    # A process that was killed may have left a journal and no manifest: there is no telling how that was colored.
    found = [out for out in results_in(folder) if (out / MANIFEST_NAME).is_file()]
    if not found:
        raise ShotError(f"{folder} holds no {MANIFEST_NAME}", hint="give a folder that colorcli has written")
    return found


def page_size(frames: int) -> int:
    """Give how large the pictures of a page of so many frames are at most, longer side in pixels."""
    return next((size for most, size in MANY_FRAMES.items() if frames <= most), SMALLEST_PAGE_PX)


def review_shot(
    out: Path,
    album: Album,
    *,
    name: str | None = None,
    drawings: Path | None = None,
    longest: int = PAGE_PX,
    with_layers: bool = False,
    threads: int = 2,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> ReviewedShot:
    """Read a shot that was colored, measure it, and put its pictures into the album.

    out: a folder with a manifest. drawings: where the frames before coloring lie; None: where the manifest says.
    longest: side of the page's pictures, pixels. with_layers: the layers that lie beside the frames as sequences are
    put into the album as well. told: how many frames are done, of how many.
    Raises ShotError if the manifest is missing or damaged; whatever else is missing is noted.
    """
    manifest = read_manifest(out)
    notes: list[str] = []
    preset = _preset_of(manifest, notes)
    records = read_records(out)
    places = _places(out, drawings, manifest, notes)
    key, palette, swatches = _read_key(out, manifest, preset, album, longest, notes)
    colors = None if palette is None else palette.colors if swatches is None else swatches
    viewing = _Viewing(places, preset, colors, album, longest, with_layers)
    seen_frames: list[ReviewedFrame] = []
    unread: list[str] = []
    last: Look | None = None
    for done, (record, ticks, seen) in enumerate(_each(records, viewing, threads), 1):
        neighbors = bool(seen_frames) and seen_frames[-1].record.sequence == record.sequence
        change = _change(last, seen.look) if neighbors else None
        look = None if seen.look is None else _slim(seen.look)
        # Why the drawing of a failed frame cannot be read is told there.
        unread += [seen.unread] if seen.unread and record.status != "failed" else []
        seen_frames.append(
            ReviewedFrame(
                measured=Measured(record, seen.trouble, look, change),
                before=_number(album, seen.before),
                after=_number(album, seen.after),
                thumb=seen.thumb,
                layers={name: _number(album, shown) for name, shown in seen.layers.items()},
                size=seen.size,
                ticks=ticks,
            )
        )
        last = seen.look or (last if record.status == "missing" else None)
        told(done, len(records))
    if unread and _is_folder(places.drawings):
        count = f"{len(unread)} drawings" if len(unread) > 1 else "a drawing"
        notes.append(f"{count} cannot be shown: {unread[0]}" + (", ..." if len(unread) > 1 else ""))
    measured = [frame.measured for frame in seen_frames]
    first = worth_a_look(measured)
    frames = tuple(
        replace(frame, reasons=tuple(first.get(place, ()))) for place, frame in enumerate(seen_frames)
    )
    return ReviewedShot(
        name=name or manifest.name or out.resolve().name,
        out=out,
        drawings=places.drawings if _is_folder(places.drawings) else None,
        manifest=manifest,
        frames=frames,
        first=tuple(first),
        key=key,
        palette=_palette_used(palette.colors, palette.shares, swatches, measured) if palette is not None else (),
        notes=tuple(notes),
    )


def result_of(shot: ReviewedShot, frame: ReviewedFrame) -> Path:
    """Give the file of a frame's result. Raises FrameError if its record names none in OUT."""
    return _plain(shot.out, frame.record.output or "")


def drawing_of(shot: ReviewedShot, frame: ReviewedFrame) -> Path:
    """Give the file of a frame's drawing. Raises FrameError if its record names none in the shot's folder."""
    return _plain(shot.drawings or shot.out, frame.record.source or "")


@dataclass(frozen=True)
class _Viewing:
    """How the frames of a shot are looked at."""

    places: _Places
    preset: Preset
    palette: Float | None   # (K, 3) colors of the key
    album: Album
    longest: int
    with_layers: bool

    def shown(self, digest: str, picture: Picture) -> _Shown:
        """A copy of a picture, unless the album has it."""
        there = self.album.number_of(digest) is not None
        return _Shown(digest, None if there else page_copy(picture, self.longest))


def _each(
    records: Sequence[FrameRecord], viewing: _Viewing, threads: int
) -> Iterator[tuple[FrameRecord, int, _Seen]]:
    """Look at every frame, some at the same time; in order, and few of them in memory."""
    waiting: deque[tuple[FrameRecord, int, Future[_Seen]]] = deque()
    held: dict[tuple[str | None, str | None], Future[_Seen]] = {}
    with ThreadPoolExecutor(threads, thread_name_prefix="review") as pool:
        for record, ticks in zip(records, _ticks(records), strict=True):
            same = (record.source_sha256, record.output_sha256)
            ahead = held.get(same) if record.status in THERE and None not in same else None
            if ahead is None:
                ahead = pool.submit(_see, record, viewing)
                held = {same: ahead}   # of a held drawing the frames lie side by side
            waiting.append((record, ticks, ahead))
            if len(waiting) > 2 * threads:
                first, first_ticks, future = waiting.popleft()
                yield first, first_ticks, future.result()
        while waiting:
            first, first_ticks, future = waiting.popleft()
            yield first, first_ticks, future.result()


def _see(record: FrameRecord, viewing: _Viewing) -> _Seen:
    """Look at one frame alone. Runs in a thread."""
    seen, places = _Seen(), viewing.places
    drawing: Picture | None = None
    result: Picture | None = None
    if record.source is not None:
        try:
            path = _plain(places.drawings, record.source)
            digest = file_digest(path)
            known = record.source_sha256 in (None, digest)
            drawing = read_picture(path)
            seen.before = viewing.shown(f"drawing {digest}", drawing)
            if not known and record.status in THERE:
                seen.trouble = f"{record.source} was drawn anew since: the next run colors it again"
        except (OSError, ColorcliError) as error:
            seen.unread = _words(error)
    if record.status in THERE:
        try:
            path = _plain(places.out, record.output or "")
            digest = file_digest(path)
            result = read_picture(path)
            seen.after, seen.size = viewing.shown(f"result {digest}", result), result.size
            if digest != record.output_sha256:
                seen.trouble = f"{record.output} is not the file that was written: somebody has changed it"
        except (OSError, ColorcliError) as error:
            seen.trouble = f"its picture cannot be shown: {_words(error)}"
    if viewing.with_layers and record.status in THERE:
        seen.layers = dict(_layers(record, viewing))
    shown = result or drawing
    seen.thumb = None if shown is None else thumbnail(shown)
    if drawing is not None and result is not None:
        if drawing.size == result.size:
            masks = []
            for folder in places.masks:
                mask = folder.get(Path(record.source or "").stem)
                if mask is not None:
                    masks.append(_mask(mask, drawing.size))
            given = [mask for mask in masks if mask is not None]
            seen.look = look_at(drawing, result, viewing.preset, viewing.palette, given)
        else:
            seen.trouble = seen.trouble or (
                f"the result is {result.size[0]}x{result.size[1]}, the drawing {drawing.size[0]}x{drawing.size[1]}"
            )
    return seen


def _mask(path: Path, size: tuple[int, int]) -> Float | None:
    """A character's mask; None if it cannot be read any more, or has another size now."""
    try:
        picture = read_picture(path)
    except ColorcliError:
        return None
    return read_mask(picture) if picture.size == size else None


def _layers(record: FrameRecord, viewing: _Viewing) -> Iterator[tuple[str, _Shown]]:
    """The layers of a frame that are pictures of their own, OUT/layers/NAME/FILE, as far as they can be read."""
    for path in record.outputs:
        parts = path.split("/")
        if len(parts) != 3 or parts[0] != LAYERS_FOLDER:
            continue
        with contextlib.suppress(OSError, ColorcliError):
            file = _plain(_plain(viewing.places.out / LAYERS_FOLDER, parts[1]), parts[2])
            yield parts[1], viewing.shown(f"layer {file_digest(file)}", read_picture(file))


def _change(before: Look | None, after: Look | None) -> Change | None:
    """What changed from one frame to the next; None where no region of one can be compared with one of the other."""
    if before is None or after is None:
        return None
    change = change_between(before, after)
    return change if change.compared > 0 else None


def _number(album: Album, shown: _Shown | None) -> int | None:
    """Put a picture into the album, in the order of the frames: the same shot gives the same page."""
    if shown is None:
        return None
    number = album.number_of(shown.digest)
    if number is None:
        assert shown.copy is not None, shown.digest
        return album.add(shown.digest, shown.copy)
    return number


def _plain(folder: Path, name: str) -> Path:
    """A file of a folder. Raises FrameError if the name leads elsewhere: records are files that anybody can write."""
    if not name or Path(name).name != name or name in (".", "..") or "\0" in name:
        raise FrameError(f"{name!r} is no plain file name")
    return folder / name


def _by_stem(folder: Path) -> Mapping[str, Path]:
    """The files of a folder by their names without extension; none where it cannot be listed."""
    try:
        return {path.stem: path for path in sorted(folder.iterdir())}
    except (OSError, ValueError):
        return {}


def _is_folder(path: Path) -> bool:
    """Whether there is such a folder; no name is too long or too strange to ask for."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _words(error: Exception) -> str:
    if isinstance(error, ColorcliError):
        return error.message
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{Path(error.filename).name} is not there"
    return str(error)


def _places(out: Path, drawings: Path | None, manifest: Manifest, notes: list[str]) -> _Places:
    folder = drawings or out / manifest.shot
    if not _is_folder(folder):
        notes.append(f"the drawings are not at {os.path.normpath(folder)}: say with --drawings where they are now")
    masks = []
    for text in manifest.request.masks:
        of_character = out / text
        own = of_character / manifest.name
        masks.append(_by_stem(own if manifest.name and _is_folder(own) else of_character))
    return _Places(out, folder, tuple(masks))


def _preset_of(manifest: Manifest, notes: list[str]) -> Preset:
    """The settings by which the shot was colored, as far as this version knows them."""
    known = {name: value for name, value in manifest.settings.items() if name in ("lines", "masks", "finish")}
    try:
        return Preset.model_validate(known)
    except ValidationError:
        notes.append("the settings are of another version: frames are measured by today's defaults")
        return Preset()


def _read_key(
    out: Path, manifest: Manifest, preset: Preset, album: Album, longest: int, notes: list[str]
) -> tuple[int | None, Palette | None, Float | None]:
    """The key's number in the album, its palette, and what the production's own palette makes of each of its colors."""
    try:
        pictures = [read_picture(out / entry.path) for entry in manifest.keys]
    except (OSError, ValueError, ColorcliError) as error:   # anybody can write a manifest
        notes.append(f"the key cannot be shown: {_words(error)}")
        return None, None, None
    if not pictures:
        notes.append("the manifest names no key")
        return None, None, None
    key = key_sheet(pictures)
    number = album.add(f"key {out} " + " ".join(entry.path for entry in manifest.keys), page_copy(key, longest))
    if [entry.sha256 for entry in manifest.keys] != [picture_digest(picture) for picture in pictures]:
        notes.append("the key was painted anew since: its palette is not the one that the frames were colored with")
    palette = key_palette(key, preset)
    if manifest.palette is None:
        return number, palette, None
    try:
        swatches = swatches_of(read_swatches(out / manifest.palette.path))
    except (OSError, ValueError, ColorcliError) as error:
        notes.append(f"the palette cannot be read: {_words(error)}")
        return number, palette, None
    return number, palette, repaint(palette.colors, shadows_of(palette), swatches, preset.finish.palette_reach).colors


def _palette_used(
    colors: Float, shares: Float, swatches: Float | None, frames: Sequence[Measured]
) -> tuple[PaletteColor, ...]:
    uses = [frame.look.palette_use for frame in frames if frame.look is not None and frame.look.palette_use.sum() > 0]
    used = np.array(uses, np.float32).reshape(-1, len(colors)) if uses else np.zeros((1, len(colors)), np.float32)
    return tuple(
        PaletteColor(
            color=colors[number] if swatches is None else swatches[number],
            in_key=None if swatches is None or np.allclose(swatches[number], colors[number]) else colors[number],
            key_share=float(shares[number]),
            used=float(used[:, number].mean()),
            used_least=float(used[:, number].min()),
            used_most=float(used[:, number].max()),
        )
        for number in range(len(colors))
    )


def _slim(look: Look) -> Look:
    """The same without its pixels."""
    nothing = np.zeros((0, 0), np.int32)
    regions = replace(look.regions, labels=nothing, depth=np.zeros((0, 0), np.float32))
    return replace(look, regions=regions, color=np.zeros((0, 0, 3), np.float32))


def _ticks(records: Sequence[FrameRecord]) -> list[int]:
    """For how many numbers each frame is shown: until the next one of its sequence, which may be drawn on twos.

    The last one, with nothing behind it, is shown for the step by which the numbers before it go, as in a timeline.
    """
    ticks: list[int] = []
    steps: list[int] = []   # of the numbers that follow one another, up to this frame
    for record, following in zip(records, [*records[1:], None], strict=False):
        step = 0
        if following is not None and following.sequence == record.sequence:
            step = (following.number or 0) - (record.number or 0)
        if 1 <= step <= LONGEST_HOLD:
            steps.append(step)
            ticks.append(step)
        else:
            ticks.append(gcd(*steps) or 1)
            steps = []
    return ticks


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
