"""`colorcli train`: run a recipe, from drawings to weights."""

import difflib
from pathlib import Path
from typing import Annotated

import typer

from colorcli import console
from colorcli.cli.options import Verbose
from colorcli.errors import PresetError, UsageError


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped one: mini")],
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0.0, show_default=False, help="Stop after about so long, with a checkpoint."),
    ] = None,
    only: Annotated[
        str | None, typer.Option("--only", metavar="STAGE", show_default=False, help="Run this stage and no other.")
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option("--start-from", metavar="DIR", show_default=False, help="A model folder to begin with."),
    ] = None,
    verbose: Verbose = 0,
) -> None:
    """Train a model; the same command goes on where it stopped."""
    console.start_logging(verbose)
    path = find_recipe(recipe)
    check_stage(path, only)

    from colorcli.train.loop import train as run_recipe

    run = run_recipe(path, console.say, minutes=minutes or None, only=only, start_from=start_from)
    console.say(f"trained in {run}")


def check_stage(path: Path, only: str | None) -> None:
    """Raise UsageError if the recipe has no such stage, PresetError if it is no good one. Loads no torch."""
    from colorcli.train.recipe import read_recipe

    stages = [stage.name for stage in read_recipe(path).stages]
    if only is not None and only not in stages:
        raise UsageError(f"--only {only}: {path.name} has no such stage", hint=f"it has {', '.join(stages)}")


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of a shipped one. Raises PresetError."""
    if "/" in name or name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise PresetError(f"there is no recipe {name}", hint="check the path; shipped is mini")
        return path
    shipped = {path.stem: path for path in _shipped_folder().glob("*.yaml")}
    if name in shipped:
        return shipped[name]
    near = difflib.get_close_matches(name, shipped, n=1)
    raise PresetError(
        f"there is no recipe called {name}",
        hint=f"did you mean {near[0]}?" if near else f"shipped are {', '.join(shipped)}; a file ends in .yaml",
    )


def _shipped_folder() -> Path:
    package = Path(__file__).parent.parent
    in_wheel = package / "recipes_shipped"
    return in_wheel if in_wheel.is_dir() else package.parent / "recipes"  # an editable install reads the checkout
