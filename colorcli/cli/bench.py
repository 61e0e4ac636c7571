"""`colorcli bench`: how fast this machine colors, on drawings made for the purpose.

As it is, the seconds of every stage. With --compare, what each technique gains beside a plain loop around diffusers,
and how far its pictures are from that loop's; with --random-weights also for a large model that is not installed.
"""

import json
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colorcli import console
from colorcli.cli import options as opt
from colorcli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from colorcli.pipeline import ColorizePipeline
    from colorcli.presets import Preset

CHARACTER = 7  # the seed of the character that is drawn
STAGES = ("read", "prepare", "color", "finish", "write")
SCHEMA = 1     # of the JSON file
MEASURED, COMPARED = "what is measured", "with --compare"

Sizes = Annotated[
    list[str] | None,
    typer.Option(
        "--size", metavar="WxH", rich_help_panel=MEASURED, show_default=False,
        help="Frame size; repeatable.  [default: 512x512, 1280x720; 1024x1024 for a large model]",
    ),
]
FrameCount = Annotated[
    int, typer.Option("--frames", rich_help_panel=MEASURED, min=1, max=1000, help="Frames of each size.",
                      show_default=True),
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", rich_help_panel=MEASURED, show_default=False,
                 help="Write the numbers there, too."),
]
RandomWeights = Annotated[
    bool,
    typer.Option("--random-weights", rich_help_panel=MEASURED,
                 help="Fill a large model (xl, xlv2) with random numbers: its speed without its weights."),
]
Compare = Annotated[
    bool,
    typer.Option("--compare", rich_help_panel=COMPARED,
                 help="Time a plain loop around diffusers and every technique in turns, with the difference of "
                 "their pictures. Takes the memory of a second model."),
]
Batches = Annotated[
    list[int] | None,
    typer.Option("--batch", metavar="N", min=1, max=64, rich_help_panel=COMPARED, show_default=False,
                 help="Frames colored together, on a GPU; repeatable."),
]
Steps = Annotated[
    int | None,
    typer.Option("--steps", metavar="N", min=1, max=150, rich_help_panel=COMPARED, show_default=False,
                 help="Instead of the preset's."),
]
GuidanceScale = Annotated[
    float | None,
    typer.Option("--guidance", metavar="SCALE", min=1, max=15, rich_help_panel=COMPARED, show_default=False,
                 help="Of the reference, instead of the preset's; 1 is off."),
]
Rounds = Annotated[
    int, typer.Option("--rounds", metavar="N", min=1, max=1000, rich_help_panel=COMPARED, show_default=True,
                      help="How often each is timed."),
]
Minutes = Annotated[
    float, typer.Option("--minutes", metavar="M", min=0, max=600, rich_help_panel=COMPARED, show_default=True,
                        help="When to stop beginning new rounds."),
]


def bench(
    sizes: Sizes = None,
    frames: FrameCount = 4,
    json_file: JsonFile = None,
    random_weights: RandomWeights = False,
    compare: Compare = False,
    batches: Batches = None,
    steps: Steps = None,
    guidance: GuidanceScale = None,
    rounds: Rounds = 5,
    minutes: Minutes = 7.0,
    preset: opt.PresetName = "cel",
    overrides: opt.Set = None,
    model: opt.Model = None,
    device: opt.Device = "auto",
    attention: opt.AttentionChoice = opt.Attention.AUTO,
    precision: opt.PrecisionChoice = opt.Precision.AUTO,
    memory: opt.MemoryChoice = opt.Memory.AUTO,
    compiled: opt.CompileChoice = opt.Compile.AUTO,
    verbose: opt.Verbose = 0,
) -> None:
    """Measure how fast this machine colors, one stage after the other, or against a plain loop."""
    console.start_logging(verbose)
    began = time.monotonic()
    wanted = [parse_size(text) for text in sizes or ()]

    from colorcli.cli.color import with_short_cuts
    from colorcli.cli.render import check_engine
    from colorcli.model.weights import family_of
    from colorcli.presets import load_preset

    check_engine(device, attention.value, precision.value)
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise UsageError(f"the folder of --json {json_file} is not there")
    changes = list(overrides or ())
    changes += [] if steps is None else [f"sampling.steps={steps}"]
    changes += [] if guidance is None else [f"reference.guidance={guidance}"]
    settings = load_preset(preset, with_short_cuts(changes, model, None), family_of)
    check_comparison(settings.model, family_of(settings.model), compare=compare, random_weights=random_weights)
    large = family_of(settings.model) != "mini"
    wanted = wanted or ([(1024, 1024)] if large else [(512, 512)] if compare else [(512, 512), (1280, 720)])
    spent: dict[str, float] = {}
    with measured("load", spent):
        machine = (device, attention.value, precision.value, memory.value)
        pipeline = open_pipeline(settings, machine, random_weights=random_weights, on=compiled is opt.Compile.ON)
    used = pipeline.describe()
    numbers = " with random weights" if random_weights else ""
    console.say(
        f"{settings.model}{numbers} loads in {console.time_in_words(spent['load'])}, libraries included; "
        f"{used['device']}, {used['attention']}, {used['precision']}, memory {used['memory']}"
    )
    result = about(settings, used, spent["load"], random_weights=random_weights)
    if compare:
        at_once = tuple(sorted({1, *(batches or ())})) if pipeline.device.type == "cuda" else (1,)
        asked = {"batches": at_once, "rounds": rounds, "compiled": compiled is opt.Compile.ON}
        left = 60 * minutes - (time.monotonic() - began)
        say_comparison(pipeline, settings, wanted, asked, left, result, json_file)
    else:
        say_stages(pipeline, settings, wanted, frames, result)
    write_json(result, json_file)


def check_comparison(name: str, family: str, *, compare: bool, random_weights: bool) -> None:
    """Raise UsageError for a model that cannot be filled with random numbers, or run in the plain loop."""
    if random_weights and name not in ("xl", "xlv2"):
        raise UsageError(f"--random-weights knows xl and xlv2, not {name}", hint="--model xl")
    if compare and family == "v2":
        raise UsageError("--compare knows mini, xl and xlv2, not v2", hint="without it, bench times the stages")


def open_pipeline(
    settings: "Preset", machine: tuple[str, str, str, str], *, random_weights: bool, on: bool
) -> "ColorizePipeline":
    """Load a model, or make one of random numbers. machine: device, attention, precision, memory. on: compiled."""
    from colorcli.cli.render import canvas_area
    from colorcli.loading import load_pipeline

    device, attention, precision, memory = machine
    if not random_weights:
        area, compiled = canvas_area(settings), "on" if on else "off"
        return load_pipeline(
            settings.model, device, attention, precision, memory, area, settings.lora, compiled=compiled
        )

    import torch

    from colorcli.model.backend import choose_backend
    from colorcli.model.memory import choose_precision, choose_profile, free_bytes
    from colorcli.speed.random_model import random_pipeline
    from colorcli.variants import VARIANTS

    chosen = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    numbers = choose_precision(precision, chosen, settings.model)
    side = round((canvas_area(settings) or VARIANTS[settings.model].canvas_area) ** 0.5)
    profile = choose_profile(memory, chosen, free_bytes(chosen), settings.model, (side, side), numbers)
    pipeline = random_pipeline(settings.model, profile, chosen)
    pipeline.attention = choose_backend(attention, chosen, [pipeline.unet], numbers.compute)
    return pipeline.compile_network(on)


def about(settings: "Preset", used: dict[str, str], loading: float, *, random_weights: bool) -> dict[str, Any]:
    """Begin the result with what its numbers depend on."""
    from colorcli.speed.measure import machine

    return {
        "schema": SCHEMA, "benchmark": "bench", "model": settings.model, "random_weights": random_weights,
        "used": used, "machine": machine(), "model_loads_seconds": round(loading, 3),
        "steps": settings.sampling.steps, "sampler": settings.sampling.sampler,
        "guidance": settings.reference.guidance, "sizes": [],
    }


def say_stages(
    pipeline: "ColorizePipeline", settings: "Preset", sizes: Sequence[tuple[int, int]], frames: int,
    result: dict[str, Any],
) -> None:
    """Time the stages of a frame of every size and print them."""
    from colorcli.speed.measure import load

    rows = []
    for width, height in sizes:
        with tempfile.TemporaryDirectory(prefix="colorcli-bench-") as folder:
            seconds = time_of_a_frame(pipeline, settings, (width, height), frames, Path(folder))
        whole = sum(seconds.values())
        share = 100 * (1 - seconds["color"] / whole)
        rows.append(
            (f"{width}x{height}", f"{whole:.2f}", *(f"{seconds[stage]:.3f}" for stage in STAGES), f"{share:.0f} %")
        )
        result["sizes"].append({"size": f"{width}x{height}", "frames": frames, "seconds": seconds, "load": load()})
    console.say_table(rows, heading=("size", "s/frame", *STAGES, "outside the network"))


def say_comparison(
    pipeline: "ColorizePipeline",
    settings: "Preset",
    sizes: Sequence[tuple[int, int]],
    asked: dict[str, Any],
    seconds: float,
    result: dict[str, Any],
    json_file: Path | None,
) -> None:
    """Compare the ways to color at every size, and print a table for each as soon as it is known."""
    from colorcli.speed.compare import Asked, of_sizes

    if pipeline.profile.moves:
        raise UsageError(
            f"--compare needs the whole model on the device, and --memory {pipeline.profile.name} moves its parts",
            hint="--memory full, or a smaller --size",
        )
    for found in of_sizes(pipeline, settings, sizes, Asked(**asked), seconds):
        result["sizes"].append(found)
        write_json(result, json_file)   # what is measured stays, should a later size fail
        console.say()
        console.say(
            f"frames of {found['size']} on canvases of {found['canvas']}, {settings.sampling.steps} steps, "
            f"medians of {found['rounds']} {'round' if found['rounds'] == 1 else 'rounds'} in turns, "
            f"load {found['load_before']} to {found['load_after']}"
        )
        console.say_table([row_of(name, way) for name, way in found["ways"].items()], heading=COLUMNS)
        for name, way in found["ways"].items():
            if "pays_after_frames" in way:
                pays = way["pays_after_frames"]
                words = "never pays" if pays is None else f"pays after {pays} frames"
                console.say(f"{name}: the first call took {way['first_call_seconds']:.0f} s, which {words}")


COLUMNS = ("way", "s/frame", "times plain", "95 %", "of matmul", "GiB", "max diff", "ΔE p99", "to")


def row_of(name: str, way: dict[str, Any]) -> tuple[str, ...]:
    """Lay out a way of `speed.compare` for the table."""
    if "problem" in way:
        return (name, *("" for _ in COLUMNS[2:]), way["problem"])
    memory = "" if way["memory_bytes"] is None else f"{way['memory_bytes'] / 2**30:.1f}"
    timed = ("", "", "", "")
    if "ratio" in way:
        ratio = way["ratio"]
        share = f"{100 * way['share_of_matmul']:.0f} %" if "share_of_matmul" in way else ""
        timed = (
            f"{way['seconds_per_frame']['median']:.3f}", f"{ratio['median']:.2f}",
            f"{ratio['low']:.2f} - {ratio['high']:.2f}", share,
        )
    near = ("", "", "")
    if "equivalence" in way:
        apart = way["equivalence"]
        near = (f"{apart['max_difference']:.2g}", f"{apart['delta_e_p99']:.2g}", way["like"])
    return (name, *timed, memory, *near)


def write_json(result: dict[str, Any], file: Path | None) -> None:
    """Write the numbers to a file, if one is asked for. Raises OutputError."""
    if file is None:
        return
    try:
        file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror}") from error


def parse_size(text: str) -> tuple[int, int]:
    """Read "1280x720" as (width, height). Raises UsageError."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.lower())
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (64 <= width <= 8192 and 64 <= height <= 8192):
        raise UsageError(f"--size {text} is no frame size", hint="write it like 1280x720, each side 64 to 8192")
    return width, height


@contextmanager
def measured(stage: str, spent: dict[str, float]) -> Iterator[None]:
    """Add the seconds that the block takes to `spent`."""
    start = time.perf_counter()
    yield
    spent[stage] = spent.get(stage, 0.0) + time.perf_counter() - start


def time_of_a_frame(
    pipeline: "ColorizePipeline", preset: "Preset", size: tuple[int, int], count: int, folder: Path
) -> dict[str, float]:
    """Seconds of each stage for one frame of this size, as the mean over `count` frames after one that warms up."""
    import numpy as np

    from colorcli.finish.finish import finish_frame
    from colorcli.images import PixelFormat, read_picture, write_picture
    from colorcli.prepare.frame import prepare_frame
    from colorcli.prepare.key import prepare_key
    from colorcli.train.drawings import design_character, draw
    from colorcli.variants import VARIANTS

    png = PixelFormat("png", "uint8")
    character = design_character(CHARACTER)
    drawings = [
        draw(character, pose, size, view="front", background="plain", framing="full") for pose in range(count + 2)
    ]
    write_picture(folder / "key.png", np.asarray(drawings[0].color / 255, np.float32), None, png)
    for number, drawing in enumerate(drawings[1:]):
        line = np.asarray(np.repeat(drawing.line[:, :, None], 3, axis=2) / 255, np.float32)
        write_picture(folder / f"{number:04d}.png", line, None, png)
    variant = VARIANTS.get(preset.model, VARIANTS["mini"])
    key = prepare_key(read_picture(folder / "key.png"), preset, variant)
    reference = pipeline.encode_reference(key, preset)
    spent: dict[str, float] = {}
    for number in range(count + 1):
        if number == 1:
            spent.clear()  # the first frame has warmed up
        with measured("read", spent):
            picture = read_picture(folder / f"{number:04d}.png")
        with measured("prepare", spent):
            frame = prepare_frame(picture, preset, variant)
        with measured("color", spent):
            layer = pipeline.color([frame], reference, preset)[0]
        with measured("finish", spent):
            color, alpha = finish_frame(layer, frame, key, preset)
        with measured("write", spent):
            write_picture(folder / f"out.{number:04d}.png", color, alpha, picture.format)
    return {stage: seconds / count for stage, seconds in spent.items()}
