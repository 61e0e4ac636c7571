"""`colorcli models`: which there are, where their weights lie, under which license, and whether they are whole."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from colorcli import console
from colorcli.cli.export_model import export_model
from colorcli.cli.import_weights import import_weights
from colorcli.cli.pull import pull

models_app = typer.Typer(
    rich_markup_mode=None, help="List models, install them, and verify their weights.", invoke_without_command=True
)
models_app.command("import")(import_weights)
models_app.command("export")(export_model)
Json = Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")]


@models_app.callback()
def models(context: typer.Context) -> None:
    """List models, install them, and verify their weights."""
    if context.invoked_subcommand is None:
        list_models()


@models_app.command("list")
def list_models(json: Json = False) -> None:
    """List the models that colorcli knows and those in the models folder, and whether their weights are here."""
    from dataclasses import asdict

    from colorcli.model import description

    listed = description.list_models()
    if json:
        for model in listed:
            console.say_json(asdict(model))
        return
    rows = [
        (model.name, model.state, console.size_in_words(model.bytes) if model.bytes is not None else "",
         model.license, model.family, model.path or "")
        for model in listed
    ]
    console.say_table(rows, heading=("model", "state", "size", "license", "family", "folder"))
    for model in listed:
        if model.state == "damaged":
            console.note(f"{model.name}: {model.problem}" + (f"  (try: {model.hint})" if model.hint else ""))
    if missing := [model.name for model in listed if model.state == "missing"]:
        console.note(f"to install {' or '.join(missing)}: colorcli models pull NAME, or colorcli models import FILE")
    folder, count = description.partial_downloads()
    if count:
        console.note(f"downloads: {console.size_in_words(count)} in {folder}; the same pull goes on with them, "
                     "or delete the folder")


@models_app.command("info")
def info(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR|FILE", help="A model, or a .safetensors or .onnx file")],
    json: Json = False,
) -> None:
    """Tell all about a model or a file of weights: license, canvas, parts, where it came from."""
    from colorcli.model.description import describe

    told = describe(name)
    if json:
        console.say_json(told.as_json())
        return
    rows = [
        ("model", told.name),
        ("family", told.family),
        ("where", told.path),
        ("license", f"{told.license}: {told.license_means}"),
        ("size", console.size_in_words(told.bytes)),
        ("digest", told.digest),
    ]
    if told.canvas:
        rows.append(("canvas", told.canvas))
    rows += list(told.remarks.items())
    console.say_table(rows)
    if told.parts:
        console.say()
        console.say_table(
            [(part.name, part.kind, f"{part.values:,}", console.size_in_words(part.bytes),
              ", ".join(part.dtypes)) for part in told.parts],
            heading=("part", "class", "values", "size", "numbers"),
        )
    if told.files:
        console.say()
        rows_of_files = [(file.sha256, console.size_in_words(file.bytes), path) for path, file in told.files.items()]
        console.say_table(rows_of_files, heading=("sha256", "size", "file"))
    if told.source:
        console.say()
        console.say_table(source_rows(told.source), heading=("made from", ""))


def source_rows(source: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lay out what a model was made of as rows: what was recorded, and a row for each file from the hub."""
    rows = [(name, str(value)) for name, value in source.items() if name != "files"]
    for entry in source.get("files", ()):
        rows.append((str(entry.get("part")), f"{entry.get('repository')}/{entry.get('file')}, commit "
                     f"{str(entry.get('revision'))[:10]}, {entry.get('license')}"))
    return rows


@models_app.command("verify")
def verify_models(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME|DIR]...", show_default=False, help="Models or folders; none: all installed ones"),
    ] = None,
    json: Json = False,
) -> None:
    """Hash the weights and compare them with what was recorded."""
    from colorcli.errors import WeightsError
    from colorcli.model.weights import installed_models, verify, weights_folder
    from colorcli.variants import VARIANTS

    broken = []
    shipped = [name for name, variant in VARIANTS.items() if variant.shipped]
    for name in names or [*shipped, *installed_models()]:
        folder = weights_folder(name)
        for check in verify(folder):
            if json:
                console.say_json({"model": name, "file": check.path, "state": check.state})
            else:
                console.say(f"{name}: {check.path}: {check.state}")
            if check.state != "ok":
                broken.append(str(folder / check.path))
    if broken:
        raise WeightsError(
            f"{broken[0]} is missing or damaged" + (f" (and {len(broken) - 1} more)" if broken[1:] else ""),
            hint="copy or install the model again",
        )


models_app.command("pull")(pull)
