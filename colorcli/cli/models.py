"""`colorcli models`: which there are, where their weights lie, under which license, and whether they are whole."""

from typing import Annotated

import typer

from colorcli import console

models_app = typer.Typer(
    rich_markup_mode=None, help="List models, and verify their weights.", invoke_without_command=True
)
Name = Annotated[str, typer.Argument(metavar="NAME|DIR", help="A model (colorcli models list) or a folder")]


@models_app.callback()
def models(context: typer.Context) -> None:
    """List models, and verify their weights."""
    if context.invoked_subcommand is None:
        list_models()


@models_app.command("list")
def list_models() -> None:
    """List the models that colorcli knows, and whether their weights are here."""
    from colorcli.errors import WeightsError
    from colorcli.model.weights import require_whole, weights_folder
    from colorcli.variants import VARIANTS

    rows = []
    for name, variant in VARIANTS.items():
        try:
            listed = require_whole(weights_folder(name))
            rows.append((name, "installed", console.size_in_words(listed.total_bytes), listed.license))
        except WeightsError as failure:
            rows.append((name, "missing", "", f"{variant.license}  ({failure.message})"))
    console.say_table(rows, heading=("model", "state", "size", "license"))


@models_app.command("info")
def info(name: Name) -> None:
    """Tell all about one model: folder, license, canvas, files and hashes."""
    from colorcli.model.weights import require_whole, weights_digest, weights_folder
    from colorcli.variants import VARIANTS

    folder = weights_folder(name)
    listed = require_whole(folder)
    rows = [
        ("model", listed.model),
        ("folder", str(folder)),
        ("license", listed.license),
        ("size", console.size_in_words(listed.total_bytes)),
        ("digest", weights_digest(folder)),
    ]
    variant = VARIANTS.get(listed.model)
    if variant:
        side = round(variant.canvas_area**0.5)
        rows.append(
            (
                "canvas",
                f"about {side} x {side} pixels, sides {variant.min_side} to {variant.max_side}, "
                f"multiples of {variant.multiple_of}",
            )
        )
    console.say_table(rows)
    console.say()
    console.say_table(
        [(file.sha256, console.size_in_words(file.bytes), path) for path, file in listed.files.items()],
        heading=("sha256", "size", "file"),
    )


@models_app.command("verify")
def verify_models(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME|DIR]...", show_default=False, help="Models or folders; none: all shipped ones"),
    ] = None,
) -> None:
    """Hash the weights and compare them with what was recorded."""
    from colorcli.errors import WeightsError
    from colorcli.model.weights import verify, weights_folder
    from colorcli.variants import VARIANTS

    broken = []
    for name in names or [name for name, variant in VARIANTS.items() if variant.shipped]:
        folder = weights_folder(name)
        checks = verify(folder)
        for check in checks:
            console.say(f"{name}: {check.path}: {check.state}")
            if check.state != "ok":
                broken.append(str(folder / check.path))
    if broken:
        raise WeightsError(
            f"{broken[0]} is missing or damaged" + (f" (and {len(broken) - 1} more)" if broken[1:] else ""),
            hint="copy or install the model again",
        )
