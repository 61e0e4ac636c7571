"""`colorcli presets`: which there are, what is in them, what a setting means, and where a value came from."""

import json
from typing import Annotated, Any

import typer

from colorcli import console
from colorcli.cli.options import Model, Set

presets_app = typer.Typer(
    rich_markup_mode=None, help="List, show, check and explain presets.", invoke_without_command=True
)
Name = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A shipped preset or a YAML file")]


@presets_app.callback()
def presets(context: typer.Context) -> None:
    """List, show, check and explain presets."""
    if context.invoked_subcommand is None:
        list_presets()


@presets_app.command("list")
def list_presets() -> None:
    """List the shipped presets and what each is for."""
    from colorcli.presets import explain_preset, shipped_presets

    console.say_table((name, explain_preset(name).description) for name in shipped_presets())


@presets_app.command("show")
def show(name: Name) -> None:
    """Print the file of a preset, to start a new one from."""
    from colorcli.errors import PresetError
    from colorcli.presets import preset_source
    from colorcli.settings import read_yaml

    path = preset_source(name)
    if read_yaml(path) is None:
        raise PresetError(f"{path} is empty")
    console.say_text(path.read_text(encoding="utf-8-sig").rstrip())


@presets_app.command("check")
def check(
    names: Annotated[list[str], typer.Argument(metavar="NAME|FILE...", help="Presets to check")], model: Model = None
) -> int:
    """Check presets and list everything that is wrong with them, for their model or another."""
    from colorcli.errors import PresetError
    from colorcli.presets import check_preset

    wrong = 0
    for name in names:
        try:
            problems = check_preset(name, [f"model={model}"] if model else (), family)
        except PresetError as failure:
            console.say(f"{failure.message}" + (f"  ({failure.hint})" if failure.hint else ""))
            wrong += 1
            continue
        for problem in problems:
            console.say(problem.message + (f"  ({problem.hint})" if problem.hint else ""))
        if not problems:
            console.say(f"{name}: good")
        wrong += bool(problems)
    if wrong:
        raise PresetError(f"{wrong} of {len(names)} presets cannot be used", hint="each line above names its place")
    return 0


@presets_app.command("keys")
def keys() -> None:
    """Print every setting: what it may be, its default, what it means."""
    from colorcli.presets import preset_keys

    for key in preset_keys():
        console.say(f"{key.path}: {as_yaml(key.default)}")
        console.say(f"    {key.meaning} ({key.allowed})")
        for entry in key.entries:
            default = "" if entry.default is None and "null" not in entry.allowed else f" {as_yaml(entry.default)}"
            console.say(f"    - {entry.path}:{default}")
            console.say(f"        {entry.meaning} ({entry.allowed})")


@presets_app.command("explain")
def explain(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE")] = "cel", overrides: Set = None, model: Model = None
) -> None:
    """Print every effective value and where it came from."""
    from colorcli.cli.color import with_short_cuts
    from colorcli.presets import explain_preset, flat_settings

    explained = explain_preset(name, with_short_cuts(overrides or (), model, None), family)
    values = flat_settings(explained.preset)
    console.say_table(
        [(path, as_yaml(value), explained.origins[path]) for path, value in values.items()],
        heading=("setting", "value", "from"),
    )


def family(model: str) -> str:
    """Tell which of the known models a model is; warn and give "" if it is not on this machine."""
    from colorcli.errors import WeightsError
    from colorcli.model.weights import family_of

    try:
        return family_of(model)
    except WeightsError as failure:
        console.warn(f"{failure.message}: settings of its own are not known here", failure.hint)
        return ""


def as_yaml(value: Any) -> str:
    """A value the way one would type it after --set."""
    from colorcli.settings import Group

    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Group):
        given = {name: getattr(value, name) for name in type(value).model_fields if name in value.model_fields_set}
        return f"{{{', '.join(f'{name}: {_quoted(inner)}' for name, inner in given.items())}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(as_yaml(item) for item in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _quoted(value: Any) -> str:
    """A value as it stands among others on one line, where text may hold commas and colons."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else as_yaml(value)
