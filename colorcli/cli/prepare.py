"""`colorcli prepare`: write what the model will see, so that a person can look at it before the render."""

from pathlib import Path
from typing import Annotated

import typer

from colorcli import console
from colorcli.cli import options as opt
from colorcli.cli.color import check_shots, make_request, with_short_cuts

Out = Annotated[
    Path,
    typer.Option(
        "-o", "--out", metavar="DIR", rich_help_panel=opt.WHERE, show_default=False, help="The folder for the pictures."
    ),
]


def prepare(
    out: Out,
    shots: opt.Shots = None,
    refs: opt.Ref = None,
    masks: opt.Masks = None,
    max_pixels: opt.MaxPixels = opt.MAX_PIXELS,
    frames: opt.Frames = None,
    chunk: opt.Chunk = None,
    preset: opt.PresetName = "cel",
    overrides: opt.Set = None,
    model: opt.Model = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = 0,
) -> int:
    """Write what the model will see: line art, masks, the bleached key."""
    console.start_logging(console.QUIET if quiet else verbose)
    check_shots(shots or (), bool(refs), ())
    request = make_request(
        shots or (),
        refs=refs or (),
        masks=masks or (),
        frames=frames,
        chunk=chunk,
        out=out,
        preset=preset,
        overrides=with_short_cuts(overrides or (), model, None),
        max_pixels=max_pixels,
    )
    from colorcli.cli.render import write_previews

    return write_previews(request)
