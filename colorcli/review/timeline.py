"""The frames of reviewed shots as an OpenTimelineIO timeline: colored frames, the drawings as their other media."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from colorcli.errors import MissingExtraError
from colorcli.review.reviewed import LONGEST_HOLD, ReviewedFrame, ReviewedShot
from colorcli.shot.manifest import THERE, FrameRecord
from colorcli.whole_file import whole_file

if TYPE_CHECKING:
    import opentimelineio as otio

COLOR, LINE = "color", "line"   # names of a clip's media


def require_otio() -> None:
    """Raise MissingExtraError if timelines cannot be written."""
    try:
        import opentimelineio  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "a timeline needs the Python package OpenTimelineIO", hint="pip install 'colorcli[review]'"
        ) from None


def write_timeline(path: Path, shots: Sequence[ReviewedShot], *, rate: float, name: str) -> None:
    """Write one track with a clip for each sequence of frames, one after the other.

    The media of a clip are the colored frames, and as "line" the drawings. rate: frames a second.
    Raises MissingExtraError without OpenTimelineIO, OutputError if the file cannot be written.
    """
    require_otio()
    import opentimelineio as otio

    timeline = otio.schema.Timeline(name=name, metadata={"colorcli": {"tool": shots[0].manifest.tool if shots else ""}})
    track = otio.schema.Track(name="color", kind=otio.schema.TrackKind.Video)
    for shot in shots:
        track.extend(_clips(shot, rate))
    timeline.tracks.append(track)
    text = otio.adapters.write_to_string(timeline, "otio_json", indent=2)
    with whole_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _clips(shot: ReviewedShot, rate: float) -> Iterator["otio.schema.Clip"]:
    """Give the clips of a shot: one a sequence, one a picture that has no number."""
    there = [frame for frame in shot.frames if frame.record.status in THERE and frame.record.output]
    for sequence, group in groupby(there, key=lambda frame: frame.record.sequence):
        frames = list(group)
        numbered = all(frame.record.number is not None for frame in frames)
        for run in _runs(frames) if numbered else [[frame] for frame in frames]:
            yield _clip(shot, sequence, run, rate)


def _runs(frames: Sequence[ReviewedFrame]) -> list[list[ReviewedFrame]]:
    """Part a sequence where its numbers leap, or its names are written in another way: 1001-1024 and 950001-950024."""
    runs = [[frames[0]]]
    for before, after in pairwise(frames):
        assert before.record.number is not None and after.record.number is not None
        leap = after.record.number - before.record.number > LONGEST_HOLD
        pattern = _pattern(after.record)
        if leap or pattern is None or _pattern(before.record) != pattern:
            runs.append([])
        runs[-1].append(after)
    return runs


def _clip(shot: ReviewedShot, sequence: str, frames: Sequence[ReviewedFrame], rate: float) -> "otio.schema.Clip":
    import opentimelineio as otio

    records = [frame.record for frame in frames]
    media: dict[str, Any] = {COLOR: _reference(shot.out, [(one.output or "", one.number) for one in records], rate)}
    if shot.drawings is not None and all(one.source for one in records):
        media[LINE] = _reference(shot.drawings, [(one.source or "", one.number) for one in records], rate)
    only_one = len({frame.record.sequence for frame in shot.frames}) == 1
    clip = otio.schema.Clip(
        name=shot.name if only_one else f"{shot.name} {sequence}",
        source_range=media[COLOR].available_range,
        metadata={"colorcli": _metadata(shot)},
    )
    clip.set_media_references(media, COLOR)
    return clip


def _reference(folder: Path, files: Sequence[tuple[str, int | None]], rate: float) -> Any:
    """Give the media that numbered files are, or the one picture without a number.

    A shot drawn on twos has every second number, and OpenTimelineIO's frame step says the same: each picture is held
    until the next.
    """
    import opentimelineio as otio

    (name, first), (_, last) = files[0], files[-1]
    parts = _parts(name, first)
    if first is None or last is None or parts is None:
        one = otio.opentime.TimeRange(otio.opentime.RationalTime(0, rate), otio.opentime.RationalTime(1, rate))
        return otio.schema.ExternalReference(target_url=(folder.resolve() / name).as_uri(), available_range=one)
    numbers = [number for _, number in files if number is not None]
    step = gcd(*(after - before for before, after in pairwise(numbers))) or 1
    prefix, digits, suffix = parts
    return otio.schema.ImageSequenceReference(
        target_url_base=folder.resolve().as_uri() + "/",
        name_prefix=_quoted(prefix),
        name_suffix=_quoted(suffix),
        start_frame=first,
        frame_step=step,
        rate=rate,
        frame_zero_padding=len(digits),
        missing_frame_policy=otio.schema.ImageSequenceReference.MissingFramePolicy.hold,
        available_range=otio.opentime.TimeRange(
            otio.opentime.RationalTime(first, rate), otio.opentime.RationalTime(last - first + step, rate)
        ),
    )


def _parts(name: str, number: int | None) -> tuple[str, str, str] | None:
    """Part a file name into what stands before its number, the digits, and what stands behind: walk. 0001 .png."""
    match = re.fullmatch(r"(.*?)(\d+)(\.[^.]+)", name, re.DOTALL)
    if match is None or number is None or int(match[2]) != number:
        return None   # a negative number, which OpenTimelineIO writes in another way
    return match[1], match[2], match[3]


def _pattern(record: FrameRecord) -> tuple[str, int, str] | None:
    """How a frame's file is named, apart from its number: with or without leading zeros, and how wide."""
    parts = _parts(record.output or "", record.number)
    if parts is None:
        return None
    prefix, digits, suffix = parts
    return prefix, len(digits) if digits.startswith("0") else 0, suffix


def _quoted(text: str) -> str:
    """A part of a file name as a part of a URL."""
    return quote(text, safe="")


def _metadata(shot: ReviewedShot) -> Mapping[str, Any]:
    """What an edit may want to know of how the frames were made."""
    manifest = shot.manifest
    return {
        "out": shot.out.resolve().as_uri(),
        "preset": manifest.request.preset,
        "models": [
            {"name": model.name, "license": model.license, "sha256": model.sha256, "used_for": model.used_for}
            for model in manifest.models
        ],
        "worth_a_look": [shot.frames[place].record.frame for place in shot.first],
    }
