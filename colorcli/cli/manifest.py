"""`colorcli manifest`: how a shot was colored, the journals of a farm joined, the files compared with the records."""

from pathlib import Path
from typing import Annotated

import typer

from colorcli import console

manifest_app = typer.Typer(rich_markup_mode=None, help="Show, merge and verify what was written.")
Out = Annotated[Path, typer.Argument(metavar="OUT", help="A folder that colorcli has written")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@manifest_app.command("show")
def show(out: Out, as_json: AsJson = False) -> None:
    """Tell how the frames in OUT were colored, and what became of each."""
    from colorcli.shot.manifest import read_manifest, read_records

    manifest = read_manifest(out)
    if as_json:
        console.say_text(manifest.model_dump_json(by_alias=True, indent=2))
        return
    totals = manifest.totals
    console.say_table(
        [
            ("shot", manifest.shot),
            ("preset", manifest.request.preset),
            ("keys", ", ".join(key.path for key in manifest.keys)),
            *([("background", manifest.background.path)] if manifest.background is not None else []),
            ("models", ", ".join(f"{model.name} ({model.license}, {model.sha256[:12]})" for model in manifest.models)),
            ("colorcli", f"{manifest.tool}, method {manifest.method}"),
            ("updated", manifest.updated or manifest.created),
            (
                "frames",
                f"{totals.frames}: {totals.written} written, {totals.skipped} up to date, {totals.held} held, "
                f"{totals.failed} failed, {totals.missing} missing",
            ),
        ]
    )
    for problem in manifest.problems:
        console.say(f"{problem.severity}: {problem.message}")
    for record in read_records(out):
        if record.error is not None:
            console.say(f"failed: {record.frame}: {record.error.message}")


@manifest_app.command("merge")
def merge(
    outs: Annotated[list[Path], typer.Argument(metavar="OUT...", help="Folders that colorcli has written")],
) -> None:
    """Join the journals of all machines that worked on a shot, and count again."""
    from colorcli.shot.manifest import merge as merge_journals

    for out in outs:
        totals = merge_journals(out).totals
        there = totals.written + totals.skipped + totals.held
        console.say(
            f"{out}: {there} of {totals.frames} frames are there, {totals.failed} failed, {totals.missing} missing"
        )


@manifest_app.command("verify")
def verify(
    outs: Annotated[list[Path], typer.Argument(metavar="OUT...", help="Folders that colorcli has written")],
) -> None:
    """Compare the files in OUT with what was recorded when they were written."""
    from colorcli.errors import FrameError
    from colorcli.shot.manifest import verify as verify_files

    fatal = []
    for out in outs:
        findings = verify_files(out)
        for finding in findings:
            console.say(f"{out}: {'error' if finding.fatal else 'note'}: {finding.message}")
        fatal += [finding for finding in findings if finding.fatal]
        if not findings:
            console.say(f"{out}: every file is as it was written")
    if fatal:
        raise FrameError(
            fatal[0].message + (f" (and {len(fatal) - 1} more)" if fatal[1:] else ""),
            hint="run the render again: it colors what is missing or altered",
        )
