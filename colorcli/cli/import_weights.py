"""`colorcli models import`: make a model folder of a published single file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from colorcli import console
from colorcli.errors import UsageError

if TYPE_CHECKING:
    from colorcli.model.importing import Imported

DTYPES = ("fp32", "fp16", "bf16")
PREDICTIONS = ("v", "eps")
NAMES_SHOWN = 3


def import_weights(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A published file: sdxl-*.safetensors, xlv2-*, v2-*")],
    clip: Annotated[
        Path | None, typer.Option("--clip", metavar="PATH", help="CLIP ViT-bigG/14, of v2 ViT-H/14: file or folder.")
    ] = None,
    tagger: Annotated[
        Path | None, typer.Option("--tagger", metavar="PATH", help="The WD v1.4 SwinV2 tagger, likewise; none for v2.")
    ] = None,
    vae: Annotated[
        Path | None, typer.Option("--vae", metavar="PATH", help="An autoencoder, for a file without one.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the new model; default: xl, xlv2 or v2.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Where its folder goes; default: the models folder.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", metavar="|".join(DTYPES), help="Number type; default: that of the file.")
    ] = None,
    prediction: Annotated[
        str | None,
        typer.Option("--prediction", metavar="|".join(PREDICTIONS), help="Default: eps if the file's name says so."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a model of that name.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Turn a published file into a model that --model takes; it is checked tensor by tensor."""
    for option, value, known in (("dtype", dtype, DTYPES), ("prediction", prediction, PREDICTIONS)):
        if value is not None and value not in known:
            message = f"--{option} {value} is none of {', '.join(known)}"
            raise UsageError(message, hint="leave it out to keep the file's")
    if name is not None and (not name or name.startswith(".") or "/" in name or "\\" in name):
        raise UsageError(f"--name {name} is no name of a folder", hint="--to chooses where the folder goes")
    transfers: console.Transfers | None = None

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal transfers
        if transfers is None:
            transfers = console.Transfers(total, quiet=quiet)
        transfers.update(stage, done, total, done)

    # What is no file of weights is refused before torch is loaded.
    from colorcli.model.single_file import family_of_file

    family_of_file(file)
    from colorcli.model.importing import import_model

    try:
        made = import_model(
            file, clip=clip, tagger=tagger, vae=vae, to=to, name=name, dtype=dtype, prediction=cast(Any, prediction),
            force=force, on_progress=progress,
        )
    finally:
        if transfers is not None:
            transfers.close()
    _tell(made, model=made.folder.name if to is None else str(made.folder))


def _tell(made: "Imported", model: str) -> None:
    """Say what was made, what was not taken, under which license, and what to type next."""
    for remark in made.notes:
        console.warn(remark)
    rows = [
        ("model", made.model),
        ("folder", str(made.folder)),
        ("size", console.size_in_words(made.bytes)),
        ("predicts", {"v": "v", "eps": "noise (eps)"}[made.prediction]),
        ("license", made.license),
        *((part, f"from {origin}") for part, origin in made.towers.items()),
        ("tensors", f"{made.used} used, {sum(len(names) for names in made.ignored.values())} left out"),
    ]
    console.say_table(rows)
    for reason, names in made.ignored.items():
        if names:
            more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
            console.say(f"left out, {reason}: {', '.join(names[:NAMES_SHOWN])}{more}")
    if "-NC" in made.license:
        console.say(f"{made.license} allows no commercial use; the license is recorded with every picture.")
    console.say(f"now: colorcli SHOT --ref KEY --model {model}")
