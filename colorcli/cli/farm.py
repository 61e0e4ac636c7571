"""`colorcli farm`: jobs for render farms, what ends such a job, and what a farm should do after each exit code."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colorcli import console
from colorcli.cli import options as opt
from colorcli.cli.color import (
    FormatChoice,
    Overwrite,
    Thorough,
    check_layers_named,
    check_shots,
    make_requests,
    with_layers,
    with_short_cuts,
)
from colorcli.errors import UsageError

if TYPE_CHECKING:
    from colorcli.farm.openjd import Bundle
    from colorcli.presets import Preset

farm_app = typer.Typer(rich_markup_mode=None, help="Jobs for render farms.")
FARM = "the farm"

BundleFolder = Annotated[
    Path,
    typer.Option("-o", "--bundle", metavar="BUNDLE", rich_help_panel=opt.WHERE, show_default=False,
                 help="The folder for the job."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="OUT", rich_help_panel=opt.WHERE, show_default=False,
                 help="The folder for the pictures.  [default: <SHOT>_color beside the shot]"),
]
FramesPerTask = Annotated[
    int,
    typer.Option("--frames-per-task", metavar="N", min=1, max=100_000, rich_help_panel=FARM, show_default=True,
                 help="Frames that a machine colors in one go; the model is loaded once for them."),
]
SecondsPerTask = Annotated[
    int,
    typer.Option("--seconds-per-task", metavar="N", min=0, max=86_400, rich_help_panel=FARM, show_default=True,
                 help="How long a task should take, for farms that then choose the frames; 0: they do not"),
]
Need = Annotated[
    list[str] | None,
    typer.Option("--need", metavar="NAME=N", rich_help_panel=FARM, show_default=False,
                 help="What a machine must have instead of what the model takes: vcpu, memory (MiB), gpu, gpu.memory "
                 "(MiB). Repeatable."),
]
CommandWords = Annotated[
    str,
    typer.Option("--command", metavar="WORDS", rich_help_panel=FARM, show_default=True,
                 help="How colorcli is called on the machines: 'rez env colorcli -- colorcli'"),
]
JobName = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", rich_help_panel=FARM, show_default=False,
                 help="The job's name.  [default: after the shots]"),
]
Parameter = Annotated[
    list[str] | None,
    typer.Option("--parameter", metavar="NAME=VALUE", rich_help_panel=FARM, show_default=False,
                 help="A further parameter: CondaPackages=colorcli, deadline:priority=80. Repeatable."),
]


@farm_app.command("openjd")
def openjd(
    bundle: BundleFolder,
    shots: opt.Shots = None,
    refs: opt.Ref = None,
    one_shot: opt.OneShot = None,
    masks: opt.Masks = None,
    max_pixels: opt.MaxPixels = opt.MAX_PIXELS,
    frames: opt.Frames = None,
    out: Out = None,
    image_format: FormatChoice = None,
    layers: opt.Layers = None,
    layers_as: opt.LayersAs = None,
    overwrite: Overwrite = False,
    thorough: Thorough = False,
    preset: opt.PresetName = "cel",
    overrides: opt.Set = None,
    files: opt.SetFile = None,
    model: opt.Model = None,
    steady: opt.Steady = None,
    device: opt.Device = "auto",
    attention: opt.AttentionChoice = opt.Attention.AUTO,
    precision: opt.PrecisionChoice = opt.Precision.AUTO,
    memory: opt.MemoryChoice = opt.Memory.AUTO,
    batch: opt.BatchChoice = "1",
    compiled: opt.CompileChoice = opt.Compile.AUTO,
    engine: opt.EngineChoice = "torch",
    frames_per_task: FramesPerTask = 24,
    seconds_per_task: SecondsPerTask = 0,
    need: Need = None,
    command: CommandWords = "colorcli",
    name: JobName = None,
    parameters: Parameter = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = 0,
) -> None:
    """Write a job bundle of Open Job Description, for AWS Deadline Cloud and `openjd run`."""
    console.start_logging(console.QUIET if quiet else verbose)
    check_shots(shots or (), bool(refs), ())
    requests = make_requests(
        shots or (),
        refs=refs or (),
        only=one_shot or (),
        masks=masks or (),
        frames=frames,
        out=out,
        chunk=None,
        overwrite=overwrite,
        thorough=thorough,
        preset=preset,
        overrides=[*with_short_cuts(overrides or (), model, image_format, steady), *with_layers(layers, layers_as)],
        files=files or (),
        engine=engine,
        max_pixels=max_pixels,
    )
    check_layers_named(requests, layers_as)
    from colorcli.cli.render import Machine, check_engine, check_networks_engine, parse_batch
    from colorcli.farm.needs import needs_of
    from colorcli.farm.openjd import FarmJob, Work, check_bundle, make_bundle, write_bundle
    from colorcli.shot.stand_in import STAND_IN

    check_engine(device, attention.value, precision.value)
    parse_batch(batch)
    machine = Machine(device, attention.value, precision.value, memory.value, batch, compiled.value, engine)
    for request in requests:
        check_networks_engine(request.preset, machine)
    options = {
        "--device": (device, "auto"), "--attention": (attention.value, "auto"),
        "--precision": (precision.value, "auto"), "--memory": (memory.value, "auto"), "--batch": (batch, "1"),
        "--compile": (compiled.value, "auto"), "--max-pixels": (max_pixels, opt.MAX_PIXELS),
    }
    words = [word for option, (value, usual) in options.items() if value != usual for word in (option, value)]
    is_folder = engine not in ("torch", "openvino", STAND_IN)
    words += [] if is_folder or engine == "torch" else ["--engine", engine]
    works = []
    for request in requests:
        kind = family(request.preset, engine)
        needs = needs_of(
            request.preset, kind, device=device, memory=memory.value, precision=precision.value, engine=engine
        )
        works.append(Work(request, kind, model_path(request.preset.model), needs))
    job = FarmJob(
        works=tuple(works),
        options=tuple(words),
        engine_folder=Path(engine) if is_folder else None,
        typed_needs=tuple(need or ()),
        frames_per_task=frames_per_task,
        seconds_per_task=seconds_per_task,
        command=command_words(command),
        name=name,
        parameters=dict(map(name_and_value, parameters or ())),
    )
    made = make_bundle(job)
    check_bundle(made, Path(os.path.abspath(bundle)))  # noqa: PTH100 (a link stays as it was typed)
    write_bundle(made, bundle)
    if not quiet:
        tell(made, bundle)


def family(preset: "Preset", engine: str) -> str:
    """Which of `VARIANTS` the model of a preset is; with the stand-in by its name alone."""
    from colorcli.model.weights import family_of
    from colorcli.shot.stand_in import STAND_IN

    if engine == STAND_IN:
        return preset.model
    return family_of(preset.model)


def model_path(model: str) -> Path | None:
    """The path of a model that is a folder or a file; None: it is a name that the machines know themselves."""
    path = Path(model).expanduser()
    typed_as_path = "/" in model or "\\" in model or path.is_file()
    return path if typed_as_path and path.exists() else None


def command_words(text: str) -> tuple[str, ...]:
    """The words of --command, parted as a shell does. Raises UsageError."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"--command {text}: {error}", hint="quote it like a command in a shell") from error
    if not words:
        raise UsageError("--command is empty", hint="leave it out where colorcli is in the path")
    return words


def name_and_value(text: str) -> tuple[str, str]:
    """The parts of a --parameter. Raises UsageError."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--parameter {text} is not of the form NAME=VALUE", hint="as in CondaPackages=colorcli")
    return name, value


def tell(made: "Bundle", folder: Path) -> None:
    """Say what the job does, what its machines need, and how it is tried and sent."""
    from colorcli.farm.openjd import RUN_VALUES, TEMPLATE

    console.say(made.template["description"])
    rows = []
    for step in made.template["steps"]:
        amounts = step.get("hostRequirements", {}).get("amounts", ())
        words = [(one["name"].removeprefix("amount.worker."), one["min"]) for one in amounts]
        needs = ", ".join(f"{value}{' MiB' if 'memory' in word else ''} {word}" for word, value in words)
        rows.append((f"  {step['name']}", f"on {needs}" if needs else ""))
    console.say_table(rows)
    template, values = shlex.quote(str(folder / TEMPLATE)), shlex.quote(f"file://{folder / RUN_VALUES}")
    console.say(f"try it:   openjd run {template} -p {values}")
    console.say(f"send it:  deadline bundle submit {shlex.quote(str(folder))}")


@farm_app.command("finish")
def finish(
    outs: Annotated[list[Path], typer.Argument(metavar="OUT...", help="Folders that the tasks wrote to, or trees")],
    frames: Annotated[
        str | None,
        typer.Option("--frames", metavar="RANGE", show_default=False, help="The frames that have to be there."),
    ] = None,
) -> None:
    """Join the records of all machines, and compare every file with them: the last step of a job."""
    from colorcli.cli.manifest import merge, verify

    merge(outs)
    verify(outs, frames)


@farm_app.command("codes")
def codes(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the exit codes, and what a farm should do after each."""
    from colorcli.farm.exit_codes import EXIT_CODES

    if as_json:
        console.say_json([{"code": one.code, "means": one.means, "again": one.again} for one in EXIT_CODES])
        return
    rows = [(str(one.code), one.again, one.means) for one in EXIT_CODES]
    console.say_table(rows, heading=("code", "again", "means"))
