"""`colorcli dataset`: training sets drawn, made of a studio's frames, and looked at before a training begins."""

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colorcli import console
from colorcli.cli.options import Verbose
from colorcli.errors import UsageError

if TYPE_CHECKING:
    from colorcli.train.data.blocks import SetReport
    from colorcli.train.data.sheet import SetCheck

SECONDS_BETWEEN = 5.0   # of two lines that tell how far it is
LISTED = 8              # files that are named, of those that cannot be used

dataset_app = typer.Typer(
    rich_markup_mode=None, help="Make training sets, of frames or of generated drawings, and look at them."
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Processes = Annotated[
    int, typer.Option("--processes", metavar="N", min=1, max=64, help="Archives that are made at the same time.")
]


class Like(StrEnum):
    """Whose training a set is looked at for."""

    XL = "xl"
    V2 = "v2"
    V1_768 = "v1-768"
    V1_512 = "v1-512"


class Reference(StrEnum):
    """Where references come from."""

    SELF = "self"
    LISTED = "listed"
    EVERY = "every"
    ARCHIVE = "archive"
    SHIFTED = "shifted"
    PAIRED = "paired"


@dataset_app.command("draw")
def draw(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder for the training set")],
    characters: Annotated[
        int, typer.Option("--characters", metavar="N", min=1, max=10_000_000, help="Made-up characters.")
    ] = 100,
    poses: Annotated[
        int, typer.Option("--poses", metavar="N", min=1, max=100, help="Drawings of each character.")
    ] = 4,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, max=2**31, help="Of the first character; the others follow.")
    ] = 0,
    side: Annotated[
        int,
        typer.Option("--side", min=128, max=2048, metavar="PX",
                     help="Height and width add up to twice this; xl learns from 1024."),
    ] = 1024,
    validation: Annotated[
        bool, typer.Option("--validation", help="Draw styles that nothing is trained on, for validation.")
    ] = False,
    processes: Processes = 2,
    as_json: Json = False,
    verbose: Verbose = 0,
) -> int:
    """Draw made-up characters into a training set. What is drawn already stays."""
    console.start_logging(verbose)
    if side % 32:
        raise UsageError(f"--side {side} is no multiple of 32", hint=f"--side {max(128, round(side / 32) * 32)}")

    from colorcli.train.data.blocks import write_blocks
    from colorcli.train.data.from_drawings import character_blocks

    blocks = character_blocks(characters, poses, seed, side, validation)
    report = write_blocks(folder, blocks, processes=processes, tell=Told("drawings", as_json))
    return tell_of_set(folder, report, as_json)


@dataset_app.command("index")
def index(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Color frames in folders; line art and masks may lie in line/ (or sketch/) "
                       "and mask/ beside a folder color/. Or a training set that has archives and no index"),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="OUT", show_default=False, help="The folder for the training set."),
    ] = None,
    extractor: Annotated[
        list[str] | None,
        typer.Option("--extractor", metavar="NAME", show_default=False,
                     help="How line art is found: outlines, xdog, highpass, network. Repeat it: each picture gets "
                     "one of them by lot. Default: all that there are."),
    ] = None,
    lines_network: Annotated[
        Path | None,
        typer.Option("--lines-network", metavar="FILE", show_default=False,
                     help="An ONNX file that finds lines in a color picture, for the extractor network."),
    ] = None,
    mask_network: Annotated[
        Path | None,
        typer.Option("--mask-network", metavar="FILE", show_default=False,
                     help="An ONNX file that finds the character in a color picture."),
    ] = None,
    references: Annotated[
        int,
        typer.Option("--references", min=0, max=1000, metavar="N",
                     help="Other frames of its folder that a frame may be colored from. 0: a frame is its own "
                     "reference, as in the published training."),
    ] = 0,
    side: Annotated[
        int | None,
        typer.Option("--side", min=64, metavar="PX", show_default=False,
                     help="Shrink pictures whose shorter side is longer than this."),
    ] = None,
    score: Annotated[
        float | None,
        typer.Option("--score", metavar="N", min=0.0, max=10.0, show_default=False,
                     help="Aesthetic score of all these pictures."),
    ] = None,
    tags: Annotated[bool, typer.Option("--tags", help="Let the tagger of mini read the tags of pictures.")] = False,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Of the lot that chooses the extractors.")
    ] = 0,
    per_archive: Annotated[
        int, typer.Option("--per-archive", metavar="N", min=1, max=100_000, help="Most pictures in an archive.")
    ] = 500,
    processes: Processes = 2,
    as_json: Json = False,
    verbose: Verbose = 0,
) -> int:
    """Make a training set of color frames. Line art and masks are found; what is made already stays."""
    console.start_logging(verbose)

    from colorcli.train.data.archives import PictureStore
    from colorcli.train.data.blocks import PARTS_FOLDER, index_archives, write_blocks
    from colorcli.train.data.from_frames import SKETCHERS, FrameOptions, check_options, frame_blocks

    if out is None or out.resolve() == folder.resolve():
        if (folder / PARTS_FOLDER).is_dir() or not all(PictureStore(folder).has(kind) for kind in ("color", "sketch")):
            raise UsageError("index has no folder to write to", hint=f"colorcli dataset index {folder} -o OUT")
        told = Told("archives", as_json)
        return tell_of_set(folder, index_archives(folder, told), as_json)
    options = FrameOptions(
        extractors=tuple(extractor or (*SKETCHERS, *(("network",) if lines_network else ()))),
        side=side, references=references, score=score, seed=seed,
        lines_network=lines_network.resolve() if lines_network else None,
        mask_network=mask_network.resolve() if mask_network else None,
    )  # fmt: skip
    check_options(options)
    blocks = frame_blocks(folder, out, options, per_archive)
    tagger: Any = None
    if tags:
        from colorcli.train.data.tags import Tagger

        tagger = Tagger()
    report = write_blocks(out, blocks, processes=processes, tell=Told("frames", as_json), tags=tagger)
    return tell_of_set(out, report, as_json)


@dataset_app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A training set: color/, sketch/, mask/")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="SHEET", show_default=False,
                     help="A picture of what training sees: sheet.png."),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", metavar="N", min=1, max=100, help="Pictures on the sheet.")] = 8,
    like: Annotated[
        Like, typer.Option("--like", metavar="NAME", help="Whose training: xl, v2, v1-768, v1-512")
    ] = Like.XL,
    side: Annotated[
        int | None,
        typer.Option("--side", min=64, metavar="PX", show_default=False,
                     help="Scale that training to canvases of this size; mini has 320."),
    ] = None,
    reference: Annotated[
        Reference,
        typer.Option("--reference", metavar="NAME",
                     help="self (the picture itself), listed (by lot), every (each listed one), archive (any of it), "
                     "shifted (another picture, as in validation), paired (from reference/)"),
    ] = Reference.SELF,
    min_score: Annotated[
        float | None, typer.Option("--min-score", metavar="N", show_default=False, help="Instead of that training's.")
    ] = None,
    min_side: Annotated[
        int | None,
        typer.Option("--min-side", min=1, metavar="PX", show_default=False, help="Instead of that training's."),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", min=1, max=4096, help="Pictures in a batch, to count batches.")
    ] = 16,
    every: Annotated[bool, typer.Option("--all", help="Read every picture, not only 500 of them.")] = False,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of what the sheet shows.")] = 0,
    as_json: Json = False,
    verbose: Verbose = 0,
) -> int:
    """Count what training can use of a set. A contact sheet shows what it sees."""
    console.start_logging(verbose)
    if out is not None and out.suffix.lower() != ".png":
        raise UsageError(f"-o {out} is no picture that is written here", hint="a name that ends in .png")

    from colorcli.train.data.pictures import PictureSet, settings_for
    from colorcli.train.data.sheet import READ, check_set, write_sheet

    settings = settings_for(like.value, side, reference=reference.value, min_score=min_score, min_side=min_side)
    pictures = PictureSet(folder, settings)
    told = Told("pictures read", as_json)
    found = check_set(pictures, batch, None if every else READ, told)
    if out is not None:
        write_sheet(out, pictures, rows, seed)
    pictures.close()
    if as_json:
        from dataclasses import asdict

        console.say_json({**asdict(found), "sheet": None if out is None else str(out)})
    else:
        tell_of_check(found, batch)
        if out is not None:
            console.say(f"the sheet is {out}")
    return 7 if found.broken else 0


class Told:
    """Tells how far it is, in a line now and then; nothing where JSON is asked for."""

    def __init__(self, what: str, quiet: bool) -> None:
        self._what, self._quiet = what, quiet
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if self._quiet or time.monotonic() - self._last < SECONDS_BETWEEN:
            return
        self._last = time.monotonic()
        console.note(f"{done} of {total} {self._what}")


def tell_of_set(folder: Path, report: "SetReport", as_json: bool) -> int:
    """What a training set has become; gives the exit code: 7 if some files are not in it."""
    failed = 7 if report.failed else 0
    if as_json:
        from dataclasses import asdict

        console.say_json({"set": str(folder), **asdict(report)})
        return failed
    rows = [("pictures", str(report.pictures)), ("archives", f"{report.blocks}, of which {report.kept} were there")]
    rows += [(group.replace("_", " "), str(count)) for group, count in report.groups.items()]
    rows += [("sketches", counted(report.sketch_by)), ("masks", counted(report.mask_by))]
    console.say_table(rows)
    if report.table == "json":
        console.warn("the index is JSON, which is slow for large sets", 'pip install "colorcli[train]" for Parquet')
    tell_broken("could not be used", report.failed)
    if report.doubtful:
        console.warn(
            f"{len(report.doubtful)} masks are nothing or all of the picture, the first is {report.doubtful[0]}",
            "give alpha or masks for them, or look with colorcli dataset check",
        )
    console.say(f"the training set is {folder}; look at it: colorcli dataset check {folder} -o sheet.png")
    return failed


def tell_of_check(found: "SetCheck", batch: int) -> None:
    """What training can use of a set."""
    counts = found.counts
    rows = [
        ("in the index" if found.indexed else "no index, sketches", str(counts.total)),
        ("kept", str(counts.kept)),
        ("left out", f"{counts.no_sketch} no sketch, {counts.low_score} scored too low, {counts.small} too small, "
         f"{counts.unreadable} unreadable rows"),
        ("kept are", f"{found.landscape} landscape, {found.portrait} portrait, {found.square} square"),
        (f"batches of {batch}", f"{found.batches} in an epoch, {found.unseen} pictures in none of them"),
        ("canvases", counted(found.canvases)),
        ("read", f"{found.read}, of which {len(found.broken)} cannot be used"),
        ("sketches", counted(found.sketch_by)),
        ("masks", counted(found.mask_by)),
    ]
    console.say_table(rows)
    tell_broken("cannot be used, training skips them", found.broken)
    if not found.batches:
        console.warn(f"there is no batch of {batch}: those of one all lie in one direction", "a smaller --batch")


def counted(counts: dict[str, int]) -> str:
    """Counts in words, the largest first: "12 xdog, 3 given"."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{count} {name}" for name, count in ordered[:LISTED])
    return shown + (f" and {len(ordered) - LISTED} more" if len(ordered) > LISTED else "") or "none"


def tell_broken(what: str, broken: dict[str, str]) -> None:
    """Name the first of some files that are not used, with the reason."""
    if not broken:
        return
    console.note(f"{len(broken)} {what}:")
    for path, reason in list(broken.items())[:LISTED]:
        folder = path.rpartition("/")[0]
        console.note(f"  {reason}" + (f" (in {folder})" if folder and folder not in reason else ""))
    if len(broken) > LISTED:
        console.note(f"  and {len(broken) - LISTED} more")
