"""`colorcli train`: run a recipe, from drawings to weights."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from colorcli import console
from colorcli.cli.options import Verbose
from colorcli.errors import PresetError, UsageError


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped one: mini, xl-base")
    ],
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
    device: Annotated[
        str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:1", show_default=True)
    ] = "auto",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", show_default=False,
                     help="Change the recipe: seed=2, stages.sketch.steps=100. Repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be trained, on what and where, and stop.")
    ] = False,
    verbose: Verbose = 0,
) -> None:
    """Train a model; the same command goes on where it stopped."""
    console.start_logging(verbose)
    path, changed = find_recipe(recipe), tuple(changes or ())
    check_recipe(path, changed, only)
    if dry_run:
        tell_plan(path, changed, only, start_from)
        return

    speaks = os.environ.get("RANK", "0") == "0"   # of several processes only the first one
    if "RANK" in os.environ:
        # DistributedDataParallel warns at every start that it looks for weights without a gradient, as we asked it to.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

    from colorcli.train.run.loop import train as run_recipe

    progress = console.training_progress() if speaks else None
    run = run_recipe(path, console.say if speaks else ignore, minutes=minutes or None, only=only,
                     start_from=start_from, device=device, changes=changed, progress=progress)
    if speaks:
        console.say(f"trained in {run}")


def ignore(text: str) -> None:
    """Tell nobody."""


def check_recipe(path: Path, changes: Sequence[str], only: str | None) -> None:
    """Raise PresetError for a recipe that is no good one, UsageError if it has no such stage. Loads no torch."""
    from colorcli.train.recipe import read_recipe

    recipe = read_recipe(path, changes)
    stages = [stage.name for stage in recipe.stages]
    if only is not None and only not in stages:
        raise UsageError(f"--only {only}: {path.name} has no such stage", hint=f"it has {', '.join(stages)}")
    if recipe.tensorboard:
        from colorcli.train.run.board import require_tensorboard

        require_tensorboard()


def tell_plan(path: Path, changes: Sequence[str], only: str | None, start_from: Path | None) -> None:
    """Tell what a run would do."""
    from colorcli.train.recipe import read_recipe
    from colorcli.train.run.plan import plan_run

    recipe = read_recipe(path, changes)
    if start_from:
        recipe = recipe.model_copy(update={"start_from": start_from})
    plan = plan_run(recipe, only)
    console.say(f"{plan.name} in {plan.folder}, {plan.precision}, weights under {plan.license}")
    for line in plan.data:
        console.say(line)
    console.say()
    for stage in plan.stages:
        total = count_in_words(sum(stage.trained.values()))
        console.say(f"{stage.name}: {stage.done} of {stage.steps} steps, {stage.batch} drawings in each (a process)")
        console.say(f"  trains {total} parameters: {counts_in_words(stage.trained)}")
        console.say(f"  frozen: {counts_in_words(stage.frozen)}")
        console.say(f"  checkpoints: {console.size_in_words(stage.checkpoint_bytes)} in {stage.folder}")
    console.say()
    console.say(f"to be written: about {console.size_in_words(plan.needed_bytes)}, "
                f"free are {console.size_in_words(plan.free_bytes)}")
    if plan.needed_bytes > plan.free_bytes:
        console.warn(f"the disk of {plan.folder} is too small for all of it",
                     "make room, or set COLORCLI_RUNS to a folder on another disk")


def counts_in_words(counts: Mapping[str, int]) -> str:
    """Counts of parameters by the name of what has them: "unet 10.7 M, projection 97.2 k"."""
    return ", ".join(f"{name} {count_in_words(count)}" for name, count in counts.items()) or "nothing"


def count_in_words(count: int) -> str:
    """A count of parameters for people: "17.2 M"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of a shipped one. Raises PresetError."""
    shipped = {path.stem: path for path in _shipped_folder().glob("*.yaml")}
    if "/" in name or name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            hint = f"check the path; shipped are {', '.join(sorted(shipped))}"
            raise PresetError(f"there is no recipe {name}", hint=hint)
        return path
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
