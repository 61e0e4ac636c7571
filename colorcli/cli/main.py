"""The `colorcli` command: from argv to an exit code. Nothing heavy is imported until a command needs it."""

import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from colorcli import __version__, console
from colorcli.cli.app import COLOR, ColorCommand, ColorGroup
from colorcli.cli.bench import bench
from colorcli.cli.color import color
from colorcli.cli.dataset import dataset_app
from colorcli.cli.doctor import doctor
from colorcli.cli.evaluate import evaluate
from colorcli.cli.farm import farm_app
from colorcli.cli.manifest import manifest_app
from colorcli.cli.models import models_app
from colorcli.cli.prepare import prepare
from colorcli.cli.presets import presets_app
from colorcli.cli.review import review
from colorcli.cli.train import train
from colorcli.errors import ColorcliError, DeviceError, UsageError

EXIT_USAGE, EXIT_INTERRUPTED, EXIT_PIPE, EXIT_TERMINATED = 2, 130, 141, 143
NAME_SHOWN = 80  # characters
EPILOG = (
    "Exit codes: 0 all frames are there, 2 usage, 3 shot, key or data unusable, 4 preset, 5 weights, 6 device or "
    "memory, 7 some frames failed and the others are done, 8 a training broke down, 9 the output cannot be written, "
    "130 interrupted, 143 terminated, 1 a mistake of colorcli."
)

app = typer.Typer(
    cls=ColorGroup,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EPILOG,
)


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a run exactly as Ctrl-C does, but with its own exit code."""


class Stopped(Exception):
    """A run that somebody ended from outside."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def show_version(asked: bool) -> None:
    if asked:
        console.say(f"colorcli {__version__}")
        raise typer.Exit


@app.callback()
def group(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Tell the version and stop.")
    ] = False,
) -> None:
    """Color directories of animation line art from one reference image per shot."""


app.command(COLOR, cls=ColorCommand, hidden=True)(color)
app.command("prepare")(prepare)
app.command("review")(review)
app.add_typer(presets_app, name="presets")
app.add_typer(models_app, name="models")
app.add_typer(manifest_app, name="manifest")
app.add_typer(farm_app, name="farm")
app.add_typer(dataset_app, name="dataset")
app.command("train")(train)
app.command("evaluate")(evaluate)
app.command("bench")(bench)
app.command("doctor")(doctor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run colorcli with these arguments (default: those of the process) and give its exit status."""
    calm_idle_threads(os.environ)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with sigterm_as_interrupt():
            return run(arguments)
    except Stopped as stop:
        return stop.exit_code
    except KeyboardInterrupt as stop:   # before the command had begun
        return EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED
    except ColorcliError as failure:
        console.complain(failure.kind, failure.message, failure.hint)
        return failure.exit_code
    except typer.TyperException as failure:
        console.complain("usage", *usage_message(failure, arguments))
        return EXIT_USAGE
    except Exception as failure:
        if is_of_a_name(failure):
            name = str(getattr(failure, "filename", None) or "a name")
            words = getattr(failure, "strerror", None) or str(failure)
            shown = name if len(name) <= NAME_SHOWN else f"{name[:NAME_SHOWN]}..."
            console.complain("usage", f"{shown} cannot be used: {first_lower(words)}", "check what was typed")
            return EXIT_USAGE
        return report_unexpected(failure)


def run(arguments: list[str]) -> int:
    """Run the command and give its exit status; raises Stopped where it was ended from outside."""
    if not arguments:
        run(["--help"])
        raise UsageError("no shot and no command is given", hint="colorcli SHOT --ref KEY")
    command: Any = typer.main.get_command(app)
    try:
        # Typer turns Ctrl-C into an exit of its own; entering the command directly keeps the two signals apart.
        with command.make_context("colorcli", arguments) as context:
            return int(command.invoke(context) or 0)
    except typer.Exit as leave:
        return leave.exit_code
    except Terminated:
        console.complain(*console.STOPPED[EXIT_TERMINATED])
        raise Stopped(EXIT_TERMINATED) from None
    except KeyboardInterrupt:
        console.complain(*console.STOPPED[EXIT_INTERRUPTED])
        raise Stopped(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        console.quiet_stdout()  # whoever read our output, such as `head`, has seen enough
        raise Stopped(EXIT_PIPE) from None


def calm_idle_threads(environment: Any) -> None:
    """Let threads that wait sleep instead of spin: on a shared machine spinning makes every frame many times slower.

    Works only before torch is imported. What the user has set stays.
    """
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment.setdefault("KMP_BLOCKTIME", "0")


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """While the command runs, a SIGTERM is a Terminated exception in the main thread."""

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not in the main thread, so the signals belong to somebody else
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def usage_message(failure: typer.TyperException, arguments: Sequence[str]) -> tuple[str, str]:
    """What is wrong with a command line, and what to do, in our words."""
    words = first_lower(failure.format_message().rstrip(".")).replace("Value error, ", "")
    option = getattr(failure, "option_name", None)
    near = getattr(failure, "possibilities", None)
    command = arguments[0] if arguments and arguments[0] in typer_command_names() else ""
    hint = f"`colorcli {command + ' ' if command else ''}--help` tells what there is"
    if option and words.startswith("no such option"):
        words = f"there is no option {option}" + (f" for {command}" if command else "")
        if near:
            hint = f"did you mean {sorted(near)[0]}?"
        if command and os.path.isdir(command):  # noqa: PTH112 (pathlib is not imported for it)
            hint = f"to color the folder {command} write ./{command}; {hint}"
    return words, hint


def typer_command_names() -> set[str]:
    """The names of the subcommands."""
    command: Any = typer.main.get_command(app)
    return set(command.commands) - {COLOR}


def is_of_a_name(failure: Exception) -> bool:
    """Whether a name was refused by the system itself: longer than a disk takes, links that lead round in a circle.

    pathlib raises it from questions as harmless as whether there is such a file.
    """
    if isinstance(failure, OSError):
        return failure.errno in (errno.ENAMETOOLONG, errno.ELOOP)
    return isinstance(failure, RuntimeError) and str(failure).startswith("Symlink loop")


def first_lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def report_unexpected(failure: Exception) -> int:
    """Explain a failure that no part of colorcli expected, and give its exit status."""
    console.show_traceback(failure)
    if isinstance(failure, MemoryError) or type(failure).__name__ == "OutOfMemoryError":
        console.complain(
            DeviceError.kind,
            f"out of memory: {failure or 'no more memory'}",
            "close other programs, or make the canvas smaller: --set canvas.area=65536",
        )
        return DeviceError.exit_code
    if isinstance(failure, ModuleNotFoundError) and not (failure.name or "").startswith("colorcli"):
        console.complain(
            "install",
            f"the Python package {failure.name} is not installed",
            "install colorcli again: pip install --force-reinstall colorcli",
        )
        return 1
    console.complain(
        "internal",
        f"a mistake of colorcli, not of yours: {type(failure).__name__}: {failure}",
        "report it with the lines above (the traceback) and what you typed; finished frames stay",
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
