"""`colorcli evaluate`: color pictures whose true colors are known, and say how well."""

import contextlib
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colorcli import console
from colorcli.cli import options as opt
from colorcli.cli.color import with_short_cuts
from colorcli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from colorcli.presets import Preset
    from colorcli.train.evaluation.evaluate import Evaluation, EvaluationRow
    from colorcli.train.evaluation.file import Comparison
    from colorcli.train.evaluation.scores.table import Column
    from colorcli.train.evaluation.truths import Known
    from colorcli.variants import Variant

# The words that stand for drawings made now, in styles never trained on: whether they are shots in which limbs move.
GENERATED = {Path("generated"): False, Path("moving"): True}
GENERATED_SHOTS = 24
GENERATED_FRAMES = 2
NAME_WIDTH = 20
PATIENCE = 10   # seconds without a word about a training set
WIDEST = 130   # characters of a line of the table
WHAT, NUMBERS, RESULT = "what is measured", "which numbers", "where they go"


def evaluate(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA",
            help="A folder of shots, each with line/, color/ and key.png; a training set with color/ and sketch/; or a "
            "word for characters that are drawn now, in styles never trained on: generated (any pose and view), moving "
            "(the pose and view of the key). With --compare: files that --json has printed",
        ),
    ],
    cross: Annotated[
        bool, typer.Option("--cross", rich_help_panel=WHAT, help="Pair every key with every other shot, too.")
    ] = False,
    shuffled: Annotated[
        bool,
        typer.Option("--shuffled", rich_help_panel=WHAT, help="Color each shot with the key of another, too, as the "
                     "papers measure. For a training set it is always done."),
    ] = False,
    shift: Annotated[
        int, typer.Option("--shift", metavar="K", min=1, rich_help_panel=WHAT, help="Which other key: K further on.")
    ] = 4,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, show_default=False, rich_help_panel=WHAT,
                     help="At most N frames, the first ones of every shot; or N pictures spread over a training set."),
    ] = None,
    characters: Annotated[
        int,
        typer.Option("--characters", metavar="N", min=1, max=5000, rich_help_panel=WHAT,
                     help="How many characters are drawn for generated and moving."),
    ] = GENERATED_SHOTS,
    frames: Annotated[
        int,
        typer.Option("--frames", metavar="N", min=1, max=1000, rich_help_panel=WHAT,
                     help="How many frames of each drawn character; flicker is best told by ten and more of moving."),
    ] = GENERATED_FRAMES,
    metrics: Annotated[
        str | None,
        typer.Option("--metrics", metavar="NAMES", show_default=False, rich_help_panel=NUMBERS,
                     help="What is measured, with commas between: regions, flicker, seconds (the default for shots), "
                     "psnr, ms-ssim, fid, similarity, tags, lines, drift, background; or all."),
    ] = None,
    judge: Annotated[
        str,
        typer.Option("--judge", metavar="MODEL", rich_help_panel=NUMBERS,
                     help="The model that reads tags and likeness, and whose tagger gives FID its features."),
    ] = "mini",
    features: Annotated[
        Path | None,
        typer.Option("--features", metavar="FILE", show_default=False, rich_help_panel=NUMBERS,
                     help="A network for FID instead: an ONNX file, or a transformers folder."),
    ] = None,
    feature_size: Annotated[
        int | None,
        typer.Option("--feature-size", metavar="PIXELS", min=8, max=4096, show_default=False, rich_help_panel=NUMBERS,
                     help="The square that it sees, where its file does not tell; 299 otherwise."),
    ] = None,
    feature_values: Annotated[
        str | None,
        typer.Option("--feature-values", metavar="RANGE", show_default=False, rich_help_panel=NUMBERS,
                     help="What its pixels are, where its file does not tell: 0..1, -1..1, 0..255, imagenet, clip."),
    ] = None,
    clip: Annotated[
        Path | None,
        typer.Option("--clip", metavar="DIR", show_default=False, rich_help_panel=NUMBERS,
                     help="A CLIP of your own for similarity: a transformers folder with safetensors."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", show_default=False, rich_help_panel=RESULT,
                     help="Keep the colored frames in this folder."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE.html", show_default=False, rich_help_panel=RESULT,
                     help="Write a page with all numbers, and the worst frames as pictures. --compare writes FILE.md, "
                     "too."),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", rich_help_panel=RESULT, help="Print a JSON object for each shot, and a summary with "
                     "all it takes to make the same again."),
    ] = False,
    comparing: Annotated[
        bool, typer.Option("--compare", rich_help_panel=RESULT, help="Put evaluations side by side: A.json B.json ...")
    ] = False,
    preset: opt.PresetName = "cel",
    overrides: opt.Set = None,
    model: opt.Model = None,
    steady: opt.Steady = None,
    device: opt.Device = "auto",
    attention: opt.AttentionChoice = opt.Attention.AUTO,
    verbose: opt.Verbose = 0,
) -> None:
    """Measure a model on pictures whose true colors are known, beside two simple ways to color from the key."""
    console.start_logging(verbose)
    if comparing:
        compare_files(data, as_json=as_json, report=report)
        return
    if len(data) > 1:
        raise UsageError(f"evaluate takes one DATA, and here are {len(data)}", hint="to compare files add --compare")

    from colorcli.cli.render import check_engine, load_engine
    from colorcli.model.weights import family_of
    from colorcli.presets import load_preset
    from colorcli.shot.engine import model_entry, variant_of
    from colorcli.train.evaluation.evaluate import Observers, Plan, check_plan, pairs_of
    from colorcli.train.evaluation.evaluate import evaluate as measure
    from colorcli.train.evaluation.file import summary_of
    from colorcli.train.evaluation.page import WorstFrames, evaluation_page
    from colorcli.train.evaluation.scores.frames import Instruments
    from colorcli.train.evaluation.scores.table import NOT_SHOWN, columns_of, metrics_named
    from colorcli.train.evaluation.truths import is_training_set

    check_engine(device, attention.value)
    check_report(report)
    source = data[0]
    drawn = source in GENERATED and not source.exists()
    of_set = not drawn and is_training_set(source)
    chosen = metrics_named(metrics, default_metrics(of_set))
    settings = load_preset(preset, with_short_cuts(overrides or (), model, steady=steady), family_of)
    instruments = Instruments(judge, features, feature_size, feature_values, clip)
    plan = Plan(chosen, cross, shuffled or of_set, shift)
    told: dict[str, Any] = {"kind": "training set" if of_set else "shots", "name": source.name, "limit": limit}
    with contextlib.ExitStack() as stack:
        if drawn:
            characters, frames = within_limit(characters, frames, limit)
            told |= {"kind": str(source), "characters": characters, "frames": frames}
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            known = draw_shots(folder, characters, frames, moving=GENERATED[source])
        else:
            told["path"] = str(source)
            known = find_known(source, limit, of_set=of_set)
        check_plan(plan, len(known))   # what is wrong with the data or the networks is told before the model loads
        instruments.check(chosen)
        entry = model_entry(settings.model)
        variant = variant_of(entry, settings.model)
        if of_set:
            settings = on_a_square(settings, variant)
        engine = load_engine(settings.model, device, attention.value, loras=settings.lora)
        columns = [column for column in columns_of(chosen) if column.of == "row" and column.key not in NOT_SHOWN]
        shown = that_fit(columns)
        worst = WorstFrames()
        by_row = bool(columns) and not as_json and not of_set
        if by_row:
            console.say_columns(*headings(shown))

        def tell(row: "EvaluationRow") -> None:
            if as_json:
                console.say_json(row.as_dict())
            elif by_row:
                console.say_columns(cells_of(row, shown), headings(shown)[1])
            if of_set:
                pace.tell()

        pace = Pace(sum(1 for _ in pairs_of(len(known), plan)))
        observers = Observers(tell, worst.add if report else lambda result: None, lambda why: console.warn(why))
        found = measure(
            known, settings, variant, engine, plan, instruments, out=out, observers=observers, pass_over=of_set
        )
    summary = summary_of(
        found, data=told, preset_name=preset, preset=settings, model=entry, plan=plan, instruments=instruments,
        colorizer=engine,
    )
    if as_json:
        console.say_json({"summary": summary})
    else:
        if by_row and columns == shown:
            say_means(found, columns)
        elif columns:
            say_sums(found)
        say_sets(found)
    for note in summary["notes"]:
        console.warn(note)
    if report is not None:
        write_page(report, evaluation_page(found.rows, found.groups, summary, worst))


class Pace:
    """Tells on stderr how far a long evaluation is: twenty times, and not before ten seconds have gone by."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._told, self._began = total, 0, 0, time.monotonic()

    def tell(self) -> None:
        """One more is done."""
        self._done += 1
        spent = time.monotonic() - self._began
        twentieth = 20 * self._done // self._total
        if twentieth > self._told and spent > PATIENCE and self._done < self._total:
            self._told = twentieth
            left = console.time_in_words(spent / self._done * (self._total - self._done))
            console.note(f"{self._done} of {self._total} colored, about {left} left")


def on_a_square(settings: "Preset", variant: "Variant") -> "Preset":
    """Have a published model see whole drawings in the middle of a white square of its size, as the papers measure.

    mini keeps the canvas it is best at; a size that the preset names stays.
    """
    if variant.has_match or settings.canvas.size is not None:
        return settings
    side = round(variant.canvas_area**0.5)
    return settings.model_copy(
        update={"canvas": settings.canvas.model_copy(update={"size": (side, side), "crop": "frame"})}
    )


def default_metrics(of_set: bool) -> tuple[str, ...]:
    """What is measured where nothing else is asked for."""
    from colorcli.train.evaluation.scores.table import DEFAULT, OF_SETS

    return OF_SETS if of_set else DEFAULT


def within_limit(characters: int, frames: int, limit: int | None) -> tuple[int, int]:
    """How many characters are drawn, and frames of each, where no more than `limit` frames are wanted in all."""
    if limit is None:
        return characters, frames
    frames = min(frames, limit)
    return min(characters, limit // frames), frames


def draw_shots(folder: Path, count: int, frames: int, *, moving: bool) -> "Sequence[Known]":
    """Draw characters of styles never trained on."""
    from colorcli.train.data.validation import write_validation_shots
    from colorcli.train.evaluation.truths import find_known_shots

    write_validation_shots(folder, count, frames, moving=moving)
    return find_known_shots(folder)


def find_known(data: Path, limit: int | None, *, of_set: bool) -> "Sequence[Known]":
    """Find what is measured. Raises ShotError or DataError."""
    from colorcli.train.evaluation.truths import find_known_pictures, find_known_shots, first_frames

    return find_known_pictures(data, limit) if of_set else first_frames(find_known_shots(data), limit)


def check_report(report: Path | None, endings: tuple[str, ...] = (".html", ".htm")) -> None:
    """Raise UsageError for a page that could not be written at the end of a long run."""
    if report is None:
        return
    if report.is_dir() or report.suffix.lower() not in endings:
        raise UsageError(f"--report {report} is no HTML file", hint="give it a name such as report.html")
    if not report.parent.is_dir():
        raise UsageError(f"{report.parent} is no folder", hint="make the folder, or choose another for --report")


def write_page(report: Path, page: str) -> None:
    """Write a page whole or not at all. Raises OutputError."""
    from colorcli.whole_file import whole_file

    with whole_file(report) as temporary:
        temporary.write_text(page, encoding="utf-8")
    console.note(f"the report is in {report}")


def headings(columns: "Sequence[Column]") -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The heads of all columns, and their widths."""
    names = ("shot", "key", "frames", *(column.title for column in columns))
    return names, tuple(NAME_WIDTH if name in ("shot", "key") else max(len(name), 5) for name in names)


def cells_of(row: "EvaluationRow", columns: "Sequence[Column]") -> tuple[str, ...]:
    """A row of the table."""
    from colorcli.train.evaluation.scores.table import in_words

    return row.shot, row.key, str(row.frames), *(in_words(column.key, row.scores.get(column.key)) for column in columns)


def that_fit(columns: "Sequence[Column]") -> "Sequence[Column]":
    """The first columns, as many as a line has room for; what does not fit is summed up at the end."""
    widths = headings(columns)[1]
    kept = [column for number, column in enumerate(columns, start=4)
            if sum(widths[:number]) + 2 * (number - 1) <= WIDEST]
    return kept


def say_means(found: "Evaluation", columns: "Sequence[Column]") -> None:
    """Sum the rows of each pairing up in one more row; a single one says it all itself."""
    from colorcli.train.evaluation.evaluate import mean_row

    for group in found.groups:
        rows = [row for row in found.rows if row.pairing == group.pairing]
        if len(rows) > 1:
            name = f"mean {group.pairing}" if len(found.groups) > 1 else "mean"
            mean = mean_row(rows, name)
            console.say_columns(cells_of(mean, columns), headings(columns)[1])
            if mean.truth:
                truth = replace(mean, shot=name.replace("mean", "truth"), scores=mean.truth)
                console.say_columns(cells_of(truth, columns), headings(columns)[1])


def say_sums(found: "Evaluation") -> None:
    """Sum up in a table of its own: a line for each number, a column for each pairing and for its truth."""
    from colorcli.train.evaluation.scores.table import column_of, in_words

    heads, lists = [], []
    for group in found.groups:
        heads += [f"{group.pairing}, {group.frames} frames"] + (["truth"] if group.truth else [])
        lists += [group.scores] + ([group.truth] if group.truth else [])
    keys = [key for key in dict.fromkeys(key for scores in lists for key in scores) if column_of(key).of == "row"]
    rows = []
    for key in keys:
        if any(scores.get(key) is not None for scores in lists):
            rows.append((column_of(key).in_words, *(in_words(key, scores.get(key)) for scores in lists)))
    console.say()
    console.say_table(rows, heading=("mean", *heads))


def say_sets(found: "Evaluation") -> None:
    """Say what is measured of whole sets, with the count it is measured on, and what could not be read."""
    from colorcli.train.evaluation.scores.table import column_of, in_words

    for group in found.groups:
        for key, value in group.scores.items():
            if column_of(key).of == "set":
                where = f", {group.pairing}" if len(found.groups) > 1 else ""
                console.say(f"{column_of(key).title}{where}: {in_words(key, value)} on {group.frames} frames")
    if found.skipped:
        console.say(f"{len(found.skipped)} could not be read and were left out")


# --- side by side ------------------------------------------------------------------------------------------------


def compare_files(files: "Sequence[Path]", *, as_json: bool, report: Path | None) -> None:
    """Show evaluations side by side. Raises UsageError for a file that is none."""
    from colorcli.train.evaluation.file import compare, comparison_markdown, read_evaluation

    check_report(report, (".html", ".htm", ".md"))
    comparison = compare([read_evaluation(file) for file in files])
    if as_json:
        for score in comparison.as_dicts():
            console.say_json(score)
    else:
        say_comparison(comparison)
    for note in comparison.notes:
        console.warn(note)
    if report is not None:
        from colorcli.train.evaluation.page import comparison_page

        write = comparison_markdown if report.suffix.lower() == ".md" else comparison_page
        write_page(report, write(comparison))


def say_comparison(comparison: "Comparison") -> None:
    """Print a table: a row for each score, a column for each evaluation, changes against the first."""
    from colorcli.train.evaluation.file import LEGEND, compared_cell
    from colorcli.train.evaluation.scores.table import column_of

    for pairing in dict.fromkeys(score.pairing for score in comparison.scores):
        rows = []
        for score in comparison.scores:
            if score.pairing == pairing and any(value.value is not None for value in score.values):
                cells = (compared_cell(score.key, value) for value in score.values)
                rows.append((column_of(score.key).in_words, *cells))
        console.say_table(rows, heading=(pairing, *comparison.names))
        console.say()
    console.say(LEGEND.format(comparison.names[0]))
