"""`colorcli evaluate`: color shots whose truth is known, and say how much of the area is right."""

from pathlib import Path
from typing import Annotated

import typer

from colorcli import console
from colorcli.cli import options as opt


def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folders with line/, color/ and key.png")],
    cross: Annotated[bool, typer.Option("--cross", help="Pair every key with every other shot, too.")] = False,
    preset: opt.PresetName = "cel",
    overrides: opt.Set = None,
    model: opt.Model = None,
    verbose: opt.Verbose = 0,
) -> None:
    """Measure how much of the area is right, on shots whose colors are known."""
    console.start_logging(verbose)
