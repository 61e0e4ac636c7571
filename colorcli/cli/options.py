"""Options that several commands share, so that each is called and explained the same everywhere."""

from enum import StrEnum
from typing import Annotated

import typer

MAX_PIXELS = "100M"   # as `images.MAX_PIXELS`, which is imported only when there are pictures to read
WHAT, HOW, WHERE, WHEN = "what is colored", "how", "where the pictures go", "the run"
CLUSTER = "on other machines"


class Progress(StrEnum):
    """In which language progress is told."""

    AUTO = "auto"
    RICH = "rich"
    PLAIN = "plain"
    JSON = "json"
    DEADLINE = "deadline"
    TRACTOR = "tractor"
    OPENJD = "openjd"
    NONE = "none"


class Attention(StrEnum):
    """Which implementation of attention is used."""

    AUTO = "auto"
    SDPA = "sdpa"
    XFORMERS = "xformers"


class Precision(StrEnum):
    """In which numbers the network computes."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


class Compile(StrEnum):
    """Whether the network is compiled."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Memory(StrEnum):
    """How the model is kept in memory."""

    AUTO = "auto"
    G8 = "8g"
    G12 = "12g"
    G24 = "24g"
    FULL = "full"


class Format(StrEnum):
    """The kind of file that is written."""

    SAME = "same"
    PNG8 = "png8"
    PNG16 = "png16"
    TIFF8 = "tiff8"
    TIFF16 = "tiff16"
    TGA = "tga"
    JPEG = "jpeg"
    EXR_HALF = "exr-half"
    EXR_FLOAT = "exr-float"


Shots = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SHOT...",
        rich_help_panel=WHAT,
        help="A folder of frames, a tree of such folders, or walk.####.png",
        show_default=False,
    ),
]
Ref = Annotated[
    list[str] | None,
    typer.Option(
        "--ref",
        metavar="KEY",
        rich_help_panel=WHAT,
        help="The key: one picture, or a pattern such as keys/{shot}.png. Repeat it for more keys of one character.",
        show_default=False,
    ),
]
Frames = Annotated[
    str | None,
    typer.Option(
        "--frames", metavar="RANGE", rich_help_panel=WHAT, help="Only these frames: 1-100x2,120", show_default=False
    ),
]
Chunk = Annotated[
    str | None,
    typer.Option(
        "--chunk", metavar="I/N", rich_help_panel=WHAT, help="Only part I of N, for a farm: 3/10", show_default=False
    ),
]
OneShot = Annotated[
    list[str] | None,
    typer.Option(
        "--shot",
        metavar="NAME",
        rich_help_panel=WHAT,
        show_default=False,
        help="Only this shot of a tree, by its path in it: sc01/c003. Repeatable.",
    ),
]
Masks = Annotated[
    list[str] | None,
    typer.Option(
        "--masks",
        metavar="DIR",
        rich_help_panel=WHAT,
        show_default=False,
        help="Character masks named like the frames. Repeat it, one folder a character.",
    ),
]
PresetName = Annotated[
    str,
    typer.Option(
        "--preset",
        metavar="NAME|FILE",
        rich_help_panel=HOW,
        show_default=True,
        help="A shipped preset (colorcli presets) or a YAML file.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        rich_help_panel=HOW,
        show_default=False,
        help="Change one setting: sampling.steps=12 (colorcli presets keys). Repeatable.",
    ),
]
SetFile = Annotated[
    list[str] | None,
    typer.Option(
        "--set-file",
        metavar="KEY=FILE",
        rich_help_panel=HOW,
        show_default=False,
        help="Where this machine has a file that a setting names, as it is typed: lora.1.file=/mnt/show.safetensors. "
        "Repeatable.",
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layers",
        metavar="NAMES",
        rich_help_panel=WHERE,
        show_default=False,
        help="Also layers for a compositor, in OUT/layers: color,line,matte,flat,shade,paper, or all",
    ),
]
LayersAs = Annotated[
    list[str] | None,
    typer.Option(
        "--layers-as",
        metavar="KIND",
        rich_help_panel=WHERE,
        show_default=False,
        help="sequences (a folder for each layer), exr (a file of many parts a frame), psd; several with commas  "
        "[default: sequences]",
    ),
]
Steady = Annotated[
    bool | None,
    typer.Option(
        "--steady/--no-steady",
        rich_help_panel=HOW,
        show_default=False,
        help="Let the drawings around a frame have a say in its colors, so that a shot does not flicker.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|DIR",
        rich_help_panel=HOW,
        show_default=False,
        help="The model instead of the preset's (colorcli models).",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device", metavar="DEVICE", rich_help_panel=WHEN, help="auto, cpu, cuda, cuda:1, mps", show_default=True
    ),
]
AttentionChoice = Annotated[
    Attention,
    typer.Option("--attention", metavar="NAME", rich_help_panel=WHEN, help="auto, sdpa, xformers", show_default=True),
]
PrecisionChoice = Annotated[
    Precision,
    typer.Option(
        "--precision",
        metavar="NAME",
        rich_help_panel=WHEN,
        show_default=True,
        help="auto (fp16 on a GPU, fp32 on the CPU and for mini), fp32, fp16, bf16",
    ),
]
EngineChoice = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME|DIR",
        rich_help_panel=WHEN,
        show_default=True,
        help="What colors: torch, openvino (on the CPU), the folder of `colorcli models export`; stand-in tries out "
        "a set-up, without any model",
    ),
]
CompileChoice = Annotated[
    Compile,
    typer.Option(
        "--compile",
        metavar="NAME",
        rich_help_panel=WHEN,
        show_default=True,
        help="Compile the network first, a minute or so: auto (a long shot on an NVIDIA card), on, off",
    ),
]
MemoryChoice = Annotated[
    Memory,
    typer.Option(
        "--memory",
        metavar="NAME",
        rich_help_panel=WHEN,
        show_default=True,
        help="The card to run on: 8g, 12g, 24g, full (nothing moves), auto (by what is free)",
    ),
]
BatchChoice = Annotated[
    str,
    typer.Option(
        "--batch",
        metavar="N|auto",
        rich_help_panel=WHEN,
        show_default=True,
        help="Frames of one size colored together on a GPU; auto: as many as fit.",
    ),
]
MaxPixels = Annotated[
    str,
    typer.Option(
        "--max-pixels",
        metavar="N",
        rich_help_panel=WHAT,
        show_default=True,
        help="Refuse larger pictures before they are decoded; 150M is 150 million pixels",
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="WHERE",
        rich_help_panel=CLUSTER,
        show_default=False,
        help="ray (one worker for each GPU here), ray:auto (the Ray cluster that this machine is part of), "
        "ray:HOST:6379, ray://HOST:10001",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        rich_help_panel=CLUSTER,
        show_default=False,
        help="With --on: how many workers.  [default: one a GPU; without GPUs one a machine]",
    ),
]
Collect = Annotated[
    bool,
    typer.Option(
        "--collect",
        rich_help_panel=CLUSTER,
        help="With --on: the machines share no storage. Drawings are sent there, and pictures back.",
    ),
]
ProgressChoice = Annotated[
    Progress,
    typer.Option(
        "--progress",
        metavar="NAME",
        rich_help_panel=WHEN,
        show_default=True,
        help="auto (a bar on a terminal, OpenJD inside its task, else a line a frame), rich, plain, json, "
        "deadline, tractor, openjd, none",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=WHEN, help="Only errors.")]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose", "-v", count=True, rich_help_panel=WHEN, show_default=False, help="Tell more; -vv everything."
    ),
]
