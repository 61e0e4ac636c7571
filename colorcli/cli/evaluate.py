"""`colorcli evaluate`: color shots whose true colors are known, and say how many regions are right."""

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colorcli import console
from colorcli.cli import options as opt
from colorcli.cli.color import with_short_cuts

if TYPE_CHECKING:
    from colorcli.train.evaluate import EvaluationRow

# The words that stand for drawings made now, in styles never trained on: whether they are shots in which limbs move.
GENERATED = {Path("generated"): False, Path("moving"): True}
GENERATED_SHOTS = 24
HEADING = ("shot", "key", "frames", "right", "by area", "painted key", "copied key", "flicker", "s/frame")
WIDTHS = (20, 20, 6, 6, 7, 11, 10, 7, 7)


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A folder of shots, each with line/, color/ and key.png; or a word for characters that are drawn "
            "now, in styles never trained on: generated (any pose and view), moving (the pose and view of the key)",
        ),
    ],
    cross: Annotated[bool, typer.Option("--cross", help="Pair every key with every other shot, too.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", show_default=False, help="Keep the colored frames in this folder."),
    ] = None,
    preset: opt.PresetName = "cel",
    overrides: opt.Set = None,
    model: opt.Model = None,
    device: opt.Device = "auto",
    attention: opt.AttentionChoice = opt.Attention.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each shot.")] = False,
    verbose: opt.Verbose = 0,
) -> None:
    """Measure how many regions get their true color, beside two simple ways to color from the key."""
    console.start_logging(verbose)

    from colorcli.cli.render import check_engine, load_engine
    from colorcli.model.weights import family_of
    from colorcli.presets import load_preset
    from colorcli.shot.engine import model_entry, variant_of
    from colorcli.train.evaluate import evaluate_shots, find_known_shots, mean_row
    from colorcli.train.validation import write_validation_shots

    check_engine(device, attention.value)
    settings = load_preset(preset, with_short_cuts(overrides or (), model, None), family_of)
    with contextlib.ExitStack() as stack:
        if data in GENERATED and not data.exists():
            moving = GENERATED[data]
            data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            write_validation_shots(data, GENERATED_SHOTS, moving=moving)
        find_known_shots(data)  # what is wrong with the data is told before the model loads
        variant = variant_of(model_entry(settings.model), settings.model)
        engine = load_engine(settings.model, device, attention.value)
        if not as_json:
            console.say_columns(HEADING, WIDTHS)

        def tell(row: "EvaluationRow") -> None:
            if as_json:
                console.say_json(row.as_dict())
            else:
                console.say_columns(cells_of(row), WIDTHS)

        rows = evaluate_shots(data, settings, cross=cross, out=out, colorizer=engine, variant=variant, on_row=tell)
    if len(rows) > 1 and not as_json:
        tell(mean_row(rows))


def cells_of(row: "EvaluationRow") -> tuple[str, ...]:
    """A row of the table. Accuracies are shares of the regions (or of the area), 0..1."""
    shares = (row.accuracy, row.area_accuracy, row.painted_key, row.copied_key)
    return (
        row.shot,
        row.key,
        str(row.frames),
        *(f"{share:.3f}" for share in shares),
        f"{row.flicker:.2f}",
        f"{row.seconds_per_frame:.2f}",
    )
