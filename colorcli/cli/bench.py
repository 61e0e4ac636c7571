"""`colorcli bench`: how fast this machine colors, and where the time goes, on drawings made for the purpose."""

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colorcli import console
from colorcli.cli import options as opt
from colorcli.errors import UsageError

if TYPE_CHECKING:
    from colorcli.pipeline import ColorizePipeline
    from colorcli.presets import Preset

CHARACTER = 7  # the seed of the character that is drawn
STAGES = ("read", "prepare", "color", "finish", "write")


def bench(
    sizes: Annotated[
        list[str] | None,
        typer.Option(
            "--size", metavar="WxH", show_default=False, help="Frame size; repeatable.  [default: 512x512, 1280x720]"
        ),
    ] = None,
    frames: Annotated[
        int, typer.Option("--frames", min=1, max=1000, help="Frames of each size.", show_default=True)
    ] = 4,
    preset: opt.PresetName = "cel",
    overrides: opt.Set = None,
    model: opt.Model = None,
    device: opt.Device = "auto",
    attention: opt.AttentionChoice = opt.Attention.AUTO,
    precision: opt.PrecisionChoice = opt.Precision.AUTO,
    memory: opt.MemoryChoice = opt.Memory.AUTO,
    verbose: opt.Verbose = 0,
) -> None:
    """Measure how fast this machine colors, one stage after the other."""
    console.start_logging(verbose)
    wanted = [parse_size(text) for text in sizes or ("512x512", "1280x720")]

    from colorcli.cli.color import with_short_cuts
    from colorcli.cli.render import canvas_area, check_engine
    from colorcli.model.weights import family_of
    from colorcli.presets import load_preset

    check_engine(device, attention.value, precision.value)
    settings = load_preset(preset, with_short_cuts(overrides or (), model, None), family_of)
    spent: dict[str, float] = {}
    with measured("load", spent):
        from colorcli.loading import load_pipeline

        pipeline = load_pipeline(
            settings.model, device, attention.value, precision.value, memory.value, canvas_area(settings), settings.lora
        )
    used = pipeline.describe()
    console.say(
        f"{settings.model} loads in {console.time_in_words(spent['load'])}, libraries included; "
        f"{used['device']}, {used['attention']}, {used['precision']}, memory {used['memory']}"
    )
    rows = []
    for width, height in wanted:
        with tempfile.TemporaryDirectory(prefix="colorcli-bench-") as folder:
            seconds = time_of_a_frame(pipeline, settings, (width, height), frames, Path(folder))
        whole = sum(seconds.values())
        share = 100 * (1 - seconds["color"] / whole)
        rows.append(
            (f"{width}x{height}", f"{whole:.2f}", *(f"{seconds[stage]:.3f}" for stage in STAGES), f"{share:.0f} %")
        )
    console.say_table(rows, heading=("size", "s/frame", *STAGES, "outside the network"))


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
