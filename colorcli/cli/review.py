"""`colorcli review`: a page by which a person judges a shot that was colored; also as a movie, and for an edit."""

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colorcli import console
from colorcli.errors import UsageError

if TYPE_CHECKING:
    from colorcli.review.reviewed import ReviewedShot

WHAT, WHERE = "what is shown", "where it goes"
LISTED = 5           # frames worth a look that are named on the terminal
PATIENCE = 10.0      # seconds without a word
MOST_THREADS = 4     # that look at frames: each holds some in memory
LARGE_PAGE = 200_000_000   # bytes of pictures


def review(
    outs: Annotated[
        list[Path],
        typer.Argument(
            metavar="OUT...", help="Folders that colorcli has written, or trees of them", show_default=False
        ),
    ],
    shots: Annotated[
        list[str] | None,
        typer.Option("--shot", metavar="NAME", rich_help_panel=WHAT, show_default=False,
                     help="Only this shot of a tree, by its path in it: sc01/c003. Repeatable."),
    ] = None,
    drawings: Annotated[
        Path | None,
        typer.Option("--drawings", metavar="DIR", rich_help_panel=WHAT, show_default=False,
                     help="Where the drawings are now, if not where they were colored from."),
    ] = None,
    layers: Annotated[
        bool,
        typer.Option("--layers", rich_help_panel=WHAT, help="Show the layers beside the frames, too: a larger page."),
    ] = False,
    rate: Annotated[
        float,
        typer.Option("--rate", metavar="FPS", min=1, max=240, rich_help_panel=WHAT, help="Frames a second."),
    ] = 24.0,
    size: Annotated[
        int | None,
        typer.Option("--size", metavar="PIXELS", min=64, max=8192, rich_help_panel=WHAT, show_default=False,
                     help="Longer side of the pictures in the page: 960, or less for more than 600 frames."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE.html", rich_help_panel=WHERE, show_default=False,
                     help="The page: OUT/review.html."),
    ] = None,
    movie: Annotated[
        Path | None,
        typer.Option("--movie", metavar="FILE", rich_help_panel=WHERE, show_default=False,
                     help="Write a movie, too: FILE.mp4 is H.264, FILE.mov is ProRes 4444. Needs the extra review."),
    ] = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", rich_help_panel=WHAT, help="The movie shows the drawings on the left.")
    ] = False,
    otio: Annotated[
        Path | None,
        typer.Option("--otio", metavar="FILE.otio", rich_help_panel=WHERE, show_default=False,
                     help="Write an OpenTimelineIO timeline of the frames, too. Needs the extra review."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=WHERE, help="Print what was found as one JSON object.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=WHERE, help="Only errors.")] = False,
) -> None:
    """Write a page that shows each frame before and after, and which to look at first."""
    console.start_logging(console.QUIET if quiet else console.NORMAL)
    from colorcli.review.page import write_page
    from colorcli.review.pictures import Album
    from colorcli.review.reviewed import page_size, review_shot
    from colorcli.shot.manifest import read_records

    found = find_named(outs, shots or ())
    page = page_path(out, outs)
    check_targets(movie, otio, side_by_side, drawings, found)
    longest = size or page_size(sum(len(read_records(folder)) for folder, _ in found))
    told = (lambda name, done, total: None) if quiet else Waiting().tell
    album = Album()
    reviewed = [
        review_shot(
            folder, album, name=name, drawings=drawings, longest=longest, with_layers=layers,
            told=partial(told, name or folder.name), threads=min(os.cpu_count() or 1, MOST_THREADS),
        )
        for folder, name in found
    ]
    title = reviewed[0].name if len(reviewed) == 1 else outs[0].resolve().name
    write_page(page, reviewed, album, rate=rate, title=f"{title}: review")
    if album.total_bytes > LARGE_PAGE and not quiet:
        console.warn(f"{page} is large, and opens slowly", f"--size {longest // 2}, or some of the shots: --shot NAME")
    written = [page]
    if movie is not None:
        from colorcli.review.movie import write_movie

        write_movie(movie, reviewed, rate=rate, side_by_side=side_by_side)
        written.append(movie)
    if otio is not None:
        from colorcli.review.timeline import write_timeline

        write_timeline(otio, reviewed, rate=rate, name=title)
        written.append(otio)
    if as_json:
        console.say_json({"written": [str(path) for path in written], "shots": [in_json(shot) for shot in reviewed]})
    elif not quiet:
        for shot in reviewed:
            tell(shot)
        for path in written:
            console.say(f"{path}  {console.size_in_words(path.stat().st_size)}")


class Waiting:
    """Tells now and then how far the measuring is, where it takes long."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def tell(self, name: str, done: int, total: int) -> None:
        """So many frames of a shot are done."""
        if time.monotonic() - self._last >= PATIENCE:
            self._last = time.monotonic()
            console.note(f"{name}: {done} of {total} frames measured")


def find_named(outs: Sequence[Path], shots: Sequence[str]) -> list[tuple[Path, str | None]]:
    """Find the folders of shots, each with its path in the tree; None: its manifest knows its name best.

    Raises ShotError if there is none, UsageError if a shot is not among them.
    """
    from colorcli.review.reviewed import find_outs

    found: list[tuple[Path, str | None]] = []
    for out in outs:
        for folder in find_outs(out):
            path = folder.relative_to(out).as_posix()
            if len(outs) > 1:
                path = out.resolve().name if path == "." else f"{out.resolve().name}/{path}"
            found.append((folder, None if path == "." else path))
    there = [name or folder.resolve().name for folder, name in found]
    for shot in shots:
        if shot not in there:
            raise UsageError(f"there is no shot {shot} in {outs[0]}", hint=f"there are {', '.join(there[:8])}")
    return [one for one, name in zip(found, there, strict=True) if not shots or name in shots]


def page_path(out: Path | None, outs: Sequence[Path]) -> Path:
    """Give the file that the page goes to. Raises UsageError."""
    from colorcli.review.page import PAGE_NAME

    if out is None:
        if len(outs) > 1:
            raise UsageError(f"{len(outs)} folders are given, and no place for their page", hint="add -o FILE.html")
        return outs[0] / PAGE_NAME
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out} is no HTML file", hint="call it FILE.html")
    return out


def check_targets(
    movie: Path | None, otio: Path | None, side_by_side: bool, drawings: Path | None, found: Sequence[Any]
) -> None:
    """Raise UsageError or MissingExtraError before a minute of measuring, not behind it."""
    if movie is not None:
        from colorcli.review.movie import KINDS, require_av

        if movie.suffix.lower() not in KINDS:
            raise UsageError(f"{movie} is no kind of movie that can be written", hint="call it FILE.mp4 or FILE.mov")
        require_av()
    elif side_by_side:
        raise UsageError("--side-by-side is about a movie, and none is asked for", hint="add --movie FILE.mp4")
    if otio is not None:
        from colorcli.review.timeline import require_otio

        if otio.suffix.lower() != ".otio":
            raise UsageError(f"{otio} is no OpenTimelineIO file", hint="call it FILE.otio")
        require_otio()
    if drawings is not None and len(found) > 1:
        raise UsageError(f"--drawings is for one shot, and here are {len(found)}", hint="name one with --shot")


def tell(shot: "ReviewedShot") -> None:
    """Say what was found in a shot."""
    worth = f"{len(shot.first)} worth a look" if shot.first else "nothing stands out"
    console.say(f"{shot.name}: {shot.there} frames, {shot.count('failed')} failed, {worth}")
    for place in shot.first[:LISTED]:
        frame = shot.frames[place]
        console.say(f"  {frame.record.frame}: {'; '.join(reason.words for reason in frame.reasons)}")
    if len(shot.first) > LISTED:
        console.say(f"  and {len(shot.first) - LISTED} more")
    for note in shot.notes:
        console.note(f"note:  {shot.name}: {note}")


def in_json(shot: "ReviewedShot") -> Mapping[str, Any]:
    """Give what was found in a shot, for programs."""
    return {
        "shot": shot.name,
        "out": str(shot.out),
        "frames": shot.there,
        "failed": shot.count("failed"),
        "missing": shot.count("missing"),
        "flicker": to_a_thousandth(shot.flicker),
        "repainted": to_a_thousandth(shot.repainted),
        "palette_distance": to_a_thousandth(shot.palette_distance),
        "worth_a_look": [
            {
                "frame": shot.frames[place].record.frame,
                "reasons": [{"kind": reason.kind, "words": reason.words} for reason in shot.frames[place].reasons],
            }
            for place in shot.first
        ],
        "notes": list(shot.notes),
    }


def to_a_thousandth(value: float | None) -> float | None:
    """A number without digits that say nothing."""
    return None if value is None else round(value, 3)
