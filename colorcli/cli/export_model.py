"""`colorcli models export`: the networks of a model for another engine, as a folder."""

from pathlib import Path
from typing import Annotated

import typer

from colorcli import console
from colorcli.errors import UsageError


def export_model(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR", help="The model (colorcli models).")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="The folder that is made; it is not there yet.")
    ],
    engine: Annotated[
        str, typer.Option("--engine", metavar="NAME", help="What will run the networks: openvino.", show_default=True)
    ] = "openvino",
) -> None:
    """Convert the networks of a model once, so that `--engine FOLDER` need not do it at every start."""
    from colorcli.model import openvino_export as exported
    from colorcli.model.weights import family_of, find_weights, require_whole

    if engine != exported.OPENVINO:
        raise UsageError(f"--engine {engine} cannot be exported to", hint=f"--engine {exported.OPENVINO}")
    exported.check_engine_family(family_of(name), name)
    exported.require_openvino()
    weights = require_whole(find_weights(name))
    with exported.new_folder(out) as folder:
        from colorcli.loading import load_pipeline, quiet_libraries
        from colorcli.model.openvino_networks import convert, save_networks

        pipeline = load_pipeline(name, "cpu", precision="fp32", memory="full", compiled="off")
        with quiet_libraries():
            save_networks(convert(pipeline), folder)
        made = exported.write_export(folder, weights)
    rows = [
        ("model", made.model),
        ("folder", str(out)),
        ("size", console.size_in_words(made.bytes)),
        ("weights", made.weights_sha256),
        ("license", made.license),
        ("made with", ", ".join(f"{package} {version}" for package, version in made.made_with.items())),
    ]
    console.say_table(rows)
    console.say(f"now: colorcli SHOT --ref KEY --engine {out}")
