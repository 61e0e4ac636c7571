"""`colorcli manifest`: how a shot was colored, the journals of a farm joined, the files compared with the records."""

from collections import Counter
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colorcli import console

if TYPE_CHECKING:
    from colorcli.shot.verify import Report

LISTED = 20  # findings of one kind in one result; --json has them all

manifest_app = typer.Typer(rich_markup_mode=None, help="Show, merge, verify and sign what was written.")
Out = Annotated[Path, typer.Argument(metavar="OUT", help="A folder that colorcli has written")]
Outs = Annotated[
    list[Path], typer.Argument(metavar="OUT...", help="Folders that colorcli has written, or trees of such folders")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@manifest_app.command("show")
def show(out: Out, as_json: AsJson = False) -> None:
    """Tell how the frames in OUT were colored, and what became of each."""
    from colorcli.shot.manifest import SCHEMA_VERSION, read_manifest, read_records, schema_version

    manifest = read_manifest(out)
    if as_json:
        console.say_text(manifest.model_dump_json(by_alias=True, indent=2))
        return
    if schema_version(manifest) > SCHEMA_VERSION:
        console.warn(f"{out} was written by a newer colorcli ({manifest.tool}): not all of it is told here")
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
    outs: Outs,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="DIR",
            show_default=False,
            help="A result of the same shot in another folder, from a machine without the shared disk: its pictures "
            "are copied. May be repeated, and be a pattern in quotes: 'nodes/*'.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 7 if records do not say the same of one frame.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Join the journals of all machines that worked on a shot, bring their frames together, and count again."""
    from colorcli.errors import FrameError, UsageError
    from colorcli.shot.merge import merge_trees

    if sources and len(outs) > 1:
        raise UsageError(
            f"--from brings frames into one OUT, and {len(outs)} are named",
            hint="write --from before each folder that they come from, or a pattern in quotes",
        )
    merged = [one for out in outs for one in merge_trees(out, list(_expanded(sources or ())))]
    if as_json:
        console.say_json(
            {
                "schema": "colorcli/merge/1",
                "outs": [
                    {
                        "out": str(one.out),
                        "shot": one.manifest.name,
                        "totals": one.manifest.totals.model_dump(),
                        "copied": list(one.copied),
                        "left_out": list(one.left_out),
                        "conflicts": [conflict.model_dump() for conflict in one.conflicts],
                    }
                    for one in merged
                ],
            }
        )
    else:
        for one in merged:
            for conflict in one.conflicts:
                console.say(f"{one.out}: conflict: {conflict.message}")
            for text in one.left_out:
                console.say(f"{one.out}: left out: {text}")
            totals = one.manifest.totals
            there = totals.written + totals.skipped + totals.held
            brought = f"{len(one.copied)} files copied, " if sources else ""
            console.say(
                f"{one.out}: {brought}{there} of {totals.frames} frames are there, {totals.failed} failed, "
                f"{totals.missing} missing"
            )
    conflicts = [conflict for one in merged for conflict in one.conflicts]
    if conflicts and strict:
        raise FrameError(
            conflicts[0].message + _and_more(conflicts), hint="color these frames again with --overwrite --frames"
        )


@manifest_app.command("verify")
def verify(
    outs: Outs,
    frames: Annotated[
        str | None,
        typer.Option(
            "--frames",
            metavar="RANGE",
            show_default=False,
            help="The frames that have to be there, as when coloring.  [default: those that the runs were asked for]",
        ),
    ] = None,
    drawings: Annotated[
        bool, typer.Option("--drawings/--no-drawings", help="Whether drawings and keys are compared as well.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Compare the files in OUT with what was recorded when they were written, and with the drawings."""
    from colorcli.errors import FrameError
    from colorcli.shot.frames import FrameRange
    from colorcli.shot.verify import Expected, verify_all

    expected = Expected(FrameRange.parse(frames) if frames is not None else None, drawings)
    reports = []
    for report in verify_all(outs, expected):
        reports.append(report)
        if not as_json:
            _say_report(report)
    fatal = [finding for report in reports for finding in report.fatal]
    if as_json:
        console.say_json(
            {"schema": "colorcli/verify/1", "ok": not fatal, "outs": [report.model_dump() for report in reports]}
        )
    if fatal:
        raise FrameError(
            fatal[0].message + _and_more(fatal), hint="run the render again: it colors what is missing or altered"
        )


def _say_report(report: "Report") -> None:
    told: Counter[tuple[str, bool]] = Counter()
    for finding in report.findings:
        told[finding.kind, finding.fatal] += 1
        if told[finding.kind, finding.fatal] <= LISTED:
            console.say(f"{report.out}: {'error' if finding.fatal else 'note'}: {finding.message}")
    for (kind, fatal), count in told.items():
        if count > LISTED:
            word = "error" if fatal else "note"
            console.say(f"{report.out}: {word}: {count - LISTED} more of the kind {kind}; --json has them all")
    if not report.fatal:
        console.say(f"{report.out}: {report.checked} files of {report.frames} frames are as they were written")


def _and_more(those: Sequence[object]) -> str:
    return f" (and {len(those) - 1} more)" if those[1:] else ""


def _expanded(sources: Sequence[str]) -> Iterator[Path]:
    """The folders that were named, and those that patterns mean. Raises ShotError for one that means nothing."""
    from colorcli.errors import ShotError

    for text in sources:
        if Path(text).exists() or not has_magic(text):
            yield Path(text)
            continue
        found = sorted(map(Path, glob(text, recursive=True)))  # noqa: PTH207 (absolute ones too, and none that are hidden)
        if not found:
            raise ShotError(f"no folder is named like {text}", hint="put the pattern in quotes, and look at the path")
        yield from found


@manifest_app.command("unsure")
def unsure(
    outs: Outs,
    below: Annotated[
        float | None,
        typer.Option(
            "--below",
            metavar="CHANCE",
            min=0.0,
            max=1.0,
            show_default=False,
            help="Only regions whose color is right with less than this chance.  [default: all that were told]",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the regions whose color may well be another one, for a person to look at."""
    from colorcli.shot.manifest import MANIFEST_NAME, THERE, read_manifest, read_records, results_named
    from colorcli.shot.unsure import UnsureFrame, unsure_frames

    told: list[UnsureFrame] = []
    silent = 0
    for root in outs:
        for out in results_named(root):
            records = read_records(out)
            # A process that was killed may have left records alone.
            shot = read_manifest(out).name if (out / MANIFEST_NAME).is_file() else out.name
            told += unsure_frames(out, shot, records, below)
            silent += sum("unsure" not in record.checks for record in records if record.status in THERE)
    if as_json:
        frames = [frame.model_dump() for frame in told]
        console.say_json({"schema": "colorcli/unsure/1", "frames": frames, "unknown": silent})
        return
    rows = [
        (
            frame.frame,
            _place(region.box),
            region.color,
            region.other or "-",
            "-" if region.sure is None else f"{region.sure:.0%}",
            frame.out,
        )
        for frame in told
        for region in frame.regions
    ]
    if rows:
        console.say_table(rows, ("frame", "left,top size", "color", "or", "sure", "in"))
    else:
        such = "unsure" if below is None else f"less sure than {below:g}"
        console.say(f"no region is known to be {such}" if silent else f"no region is {such}")
    if left := sum(frame.count - len(frame.regions) for frame in told) if below is None else 0:
        console.warn(f"{left} more regions are smaller than these, and not listed")
    if silent:
        noun = "frame" if silent == 1 else "frames"
        console.warn(
            f"of {silent} {noun} nothing is known: begun from noise, colored with checks.unsure_below=0, or by an "
            "older colorcli"
        )


def _place(box: tuple[int, int, int, int]) -> str:
    left, top, width, height = box
    return f"{left},{top} {width}x{height}"


@manifest_app.command("sign")
def sign(
    outs: Outs,
    certificate: Annotated[
        Path,
        typer.Option("--certificate", metavar="FILE", help="Your certificate, then those that vouch for it: PEM"),
    ],
    private_key: Annotated[
        Path, typer.Option("--private-key", metavar="FILE", help="Its private key, a PEM file without a password")
    ],
) -> None:
    """Sign the pictures in OUT: content credentials (C2PA) that tell which model colored them."""
    from colorcli.errors import FrameError
    from colorcli.shot.credentials import open_signer, sign_frames
    from colorcli.shot.manifest import results_named

    signer = open_signer(certificate, private_key)
    problems: list[str] = []
    for root in outs:
        for out in results_named(root):
            done = sign_frames(out, signer)
            again = f", {len(done.already)} were" if done.already else ""
            console.say(f"{out}: {len(done.signed)} pictures are signed as {signer.subject}{again}")
            for name, why in done.left_out:
                console.warn(f"{out / name} is not signed: {why}")
                problems.append(name)
    if problems:
        raise FrameError(f"{len(problems)} pictures are not signed: {', '.join(problems[:4])}", hint="see above")
