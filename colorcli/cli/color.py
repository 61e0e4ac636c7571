"""`colorcli SHOT... --ref KEY`: from the options to one request, and from the request to colored frames."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from colorcli import console
from colorcli.cli import options as opt
from colorcli.errors import UsageError

if TYPE_CHECKING:
    from colorcli.shot.plan import ShotRequest

Out = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        metavar="OUT",
        rich_help_panel=opt.WHERE,
        show_default=False,
        help="The folder for the pictures.  [default: <SHOT>_color beside the shot]",
    ),
]
FormatChoice = Annotated[
    opt.Format | None,
    typer.Option(
        "--format",
        metavar="KIND",
        rich_help_panel=opt.WHERE,
        show_default=False,
        help="same, png8, png16, tiff8, tiff16, tga, jpeg, exr-half, exr-float",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", rich_help_panel=opt.WHERE, help="Color every frame again, also those that are up to date."
    ),
]
Thorough = Annotated[
    bool,
    typer.Option(
        "--thorough",
        rich_help_panel=opt.WHERE,
        help="Read finished frames and their drawings again to see what changed, not only their sizes and times.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", "-n", rich_help_panel=opt.WHEN, help="List what would happen and what is wrong; color nothing."
    ),
]


def color(
    context: typer.Context,
    shots: opt.Shots = None,
    refs: opt.Ref = None,
    one_shot: opt.OneShot = None,
    masks: opt.Masks = None,
    max_pixels: opt.MaxPixels = opt.MAX_PIXELS,
    frames: opt.Frames = None,
    chunk: opt.Chunk = None,
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
    on: opt.On = None,
    workers: opt.Workers = None,
    collect: opt.Collect = False,
    progress: opt.ProgressChoice = opt.Progress.AUTO,
    dry_run: DryRun = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = 0,
) -> int:
    """Color every frame of a shot from one key. A second run colors only what changed."""
    console.start_logging(console.QUIET if quiet else verbose)
    check_shots(shots or (), bool(refs), subcommands(context))
    requests = make_requests(
        shots or (),
        refs=refs or (),
        only=one_shot or (),
        masks=masks or (),
        frames=frames,
        chunk=chunk,
        out=out,
        overwrite=overwrite,
        thorough=thorough,
        preset=preset,
        overrides=[*with_short_cuts(overrides or (), model, image_format, steady), *with_layers(layers, layers_as)],
        files=files or (),
        engine=engine,
        max_pixels=max_pixels,
    )
    check_layers_named(requests, layers_as)
    from colorcli.cli.elsewhere import Elsewhere, check_elsewhere
    from colorcli.cli.render import Machine, check_networks_engine, render

    machine = Machine(device, attention.value, precision.value, memory.value, batch, compiled.value, engine)
    elsewhere = Elsewhere(on, workers, collect)
    if dry_run:
        from colorcli.cli.dry_run import show_plans

        for request in requests:
            check_networks_engine(request.preset, machine)
        check_elsewhere(elsewhere, device)
        return show_plans(requests, machine.engine)
    return render(requests, machine, progress=progress.value, quiet=quiet, elsewhere=elsewhere)


def subcommands(context: typer.Context) -> tuple[str, ...]:
    """The names of all commands, from inside one of them."""
    group: Any = context.parent.command if context.parent else None
    return tuple(group.commands) if group else ()


def with_short_cuts(
    overrides: Sequence[str], model: str | None, image_format: opt.Format | None = None, steady: bool | None = None
) -> list[str]:
    """The overrides of --set, with --model, --format and --steady, which are short for a setting each, on top."""
    short_cuts = [f"model={model}"] if model else []
    if image_format:
        short_cuts.append(f"output.format={image_format.value}")
    if steady is not None:
        short_cuts.append(f"steady.on={str(steady).lower()}")
    return [*overrides, *short_cuts]


def with_layers(layers: Sequence[str] | None, kinds: Sequence[str] | None) -> list[str]:
    """The settings that --layers and --layers-as are short for. Raises UsageError for a name that is none."""
    from colorcli.presets import LayerFiles, LayerName

    short_cuts = []
    for option, key, given, known in (
        ("--layers", "names", layers, get_args(LayerName)), ("--layers-as", "files", kinds, get_args(LayerFiles)),
    ):
        words = [word.strip() for text in given or () for word in text.split(",")]
        names = [one for word in words for one in (known if word == "all" and key == "names" else [word]) if one]
        for name in names:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                raise UsageError(f"{option} {name} is not known", hint=hint)
        if given and not names:
            raise UsageError(f"{option} names nothing", hint=f"there are {', '.join(known)}")
        if names:
            short_cuts.append(f"layers.{key}=[{', '.join(dict.fromkeys(names))}]")
    return short_cuts


def check_layers_named(requests: "Sequence[ShotRequest]", kinds: Sequence[str] | None) -> None:
    """Raise UsageError for --layers-as where neither --layers nor a preset names a layer."""
    if kinds and not any(request.preset.layers.names for request in requests):
        raise UsageError(f"--layers-as {','.join(kinds)}, but no layer is named", hint="--layers all, or color,line")


def check_shots(shots: Sequence[str], has_ref: bool, commands: Sequence[str]) -> None:
    """Raise UsageError where somebody meant a command: `colorcli presetz`, `colorcli -v doctor`."""
    if not shots:
        hint = "colorcli SHOT --ref KEY, or `colorcli --help`"
        raise UsageError("no shot is given", hint=hint)
    for shot in shots:
        if Path(shot).exists() or "/" in shot:
            continue
        if shot in commands:
            raise UsageError(f"{shot} is a command, and a command comes first", hint=f"colorcli {shot} ...")
        near = get_close_matches(shot, [name for name in commands if name[0] != "<"], n=1, cutoff=0.75)
        if near and len(shots) == 1 and not has_ref:
            raise UsageError(f"there is no shot and no command called {shot}", hint=f"did you mean colorcli {near[0]}?")


def make_requests(shots: Sequence[str], **typed: Any) -> "list[ShotRequest]":
    """Bring what was typed into requests: one for all shots that are named, and one for each of a shot list.

    typed: the other arguments of `make_request`. They count for every shot of a list that says nothing else; `--set`
    comes on top of what it says, and `-o` takes the place of the list's own folder. Raises what `make_request` raises.
    """
    from colorcli.shot.shot_list import is_shot_list, read_shot_list

    named = [shot for shot in shots if not is_shot_list(shot)]
    requests = [make_request(named, **typed)] if named else []
    for text in dict.fromkeys(shots):
        if is_shot_list(text):
            for one in read_shot_list(Path(text), typed["out"]):
                own = {
                    "refs": one.refs or typed["refs"],
                    "masks": one.masks or typed["masks"],
                    "frames": one.frames or typed["frames"],
                    "out": one.out,
                    "preset": one.preset or typed["preset"],
                    "overrides": [*one.overrides, *typed["overrides"]],
                }
                requests.append(make_request([one.shot], **typed | own))
    return requests


def make_request(
    shots: Sequence[str],
    *,
    refs: Sequence[str],
    only: Sequence[str] = (),
    masks: Sequence[str] = (),
    frames: str | None = None,
    chunk: str | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    thorough: bool = False,
    preset: str = "cel",
    overrides: Sequence[str] = (),
    files: Sequence[str] = (),
    engine: str = "torch",
    max_pixels: str = opt.MAX_PIXELS,
) -> "ShotRequest":
    """Bring what was typed into one request. Raises PresetError, and WeightsError if the model is not there.

    The stand-in asks for no model: of one that is named by a folder its own settings are not known then.
    """
    from colorcli.model.weights import family_of
    from colorcli.presets import load_preset, with_files
    from colorcli.shot.plan import ShotRequest
    from colorcli.shot.stand_in import STAND_IN

    return ShotRequest(
        shots=tuple(shots),
        refs=tuple(refs),
        only=tuple(only),
        out=out,
        frames=frames,
        chunk=chunk,
        masks=tuple(map(Path, masks)),
        overwrite=overwrite,
        thorough=thorough,
        preset=with_files(load_preset(preset, overrides, None if engine == STAND_IN else family_of), files),
        preset_name=preset,
        max_pixels=parse_pixels(max_pixels),
    )


def parse_pixels(text: str) -> int:
    """Read a count of pixels, "150M" or "150000000". Raises UsageError."""
    match = re.fullmatch(r"\s*(\d{1,12})\s*([mM]?)\s*", text, re.ASCII)
    count = int(match[1]) * (1_000_000 if match[2] else 1) if match else 0
    if count < 1:
        raise UsageError(f"--max-pixels {text} is no number of pixels", hint="write it like 150M, for 150 million")
    return count
