"""The shape of the command line: one bare form that colors, and subcommands beside it."""

from typing import Any

import typer
from typer.core import TyperGroup

# The command behind the bare form. A name that nobody types, so that every folder name stays free for shots.
COLOR = "<color>"
# Typer lists groups of commands behind plain ones; people read them in the order of the work.
ORDER = (
    "prepare", "review", "presets", "models", "manifest", "farm", "doctor", "bench", "dataset", "train", "evaluate",
)  # fmt: skip
COMMAND_HELP = ("--help", "-h", "--version")


class ColorGroup(TyperGroup):
    """`colorcli SHOT... --ref KEY`: whatever does not begin with a subcommand is the coloring of shots."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in COMMAND_HELP:
            args = [COLOR, *args]
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write both forms on one page: the options of the bare form, then the subcommands."""
        color = self.commands[COLOR]
        formatter.write_text("colorcli SHOT... --ref KEY [-o OUT]   options in any order")
        formatter.write_text("colorcli COMMAND ...                  colorcli COMMAND --help tells more")
        formatter.write_paragraph()
        formatter.write_text(color.help or "")
        write_options(color, ctx, formatter)
        with formatter.section("commands"):
            shown = [(name, self.commands[name]) for name in ORDER]
            formatter.write_dl([(name, command.get_short_help_str(limit=100)) for name, command in shown])
        formatter.write_paragraph()
        formatter.write_text(self.epilog or "")


class ColorCommand(typer.core.TyperCommand):
    """The command behind the bare form: its help is the first page."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        ctx.parent.command.format_help(ctx.parent, formatter)


def write_options(command: Any, ctx: Any, formatter: Any) -> None:
    """Write the options of a command, a section for each panel, in the order they are declared."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.params:
        record = parameter.get_help_record(ctx)
        if record is not None:
            if parameter.param_type_name == "argument":
                record = (parameter.metavar, record[1])  # without the Python type
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or "options", []).append(record)
    for title, records in panels.items():
        with formatter.section(title):
            formatter.write_dl(records)
