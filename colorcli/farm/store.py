"""Files of another machine, kept here while a worker needs them, and paths as they are seen from here."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from colorcli.farm.orders import Files
from colorcli.presets import Preset, files_of, with_files
from colorcli.shot.manifest import output_error
from colorcli.shot.plan import FrameJob
from colorcli.whole_file import is_running

Value = TypeVar("Value")

SCRATCH = "colorcli-worker-"


class Store:
    """Files of another machine, in a folder of their own; taken away in the end, or by the next worker here."""

    def __init__(self, folder: Path) -> None:
        """Raises OutputError."""
        _sweep(folder)
        try:
            self._root = Path(tempfile.mkdtemp(prefix=f"{SCRATCH}{os.getpid()}-", dir=folder))
        except OSError as error:
            raise output_error(folder, error) from error
        self._passing: set[str] = set()   # those of single frames

    def place(self, path: Path) -> Path:
        """Where a file of the other machine lies here: in the same tree, below this folder."""
        return self._root.joinpath("files", *("up" if part == ".." else part for part in path.parts[1:]))

    def put(self, files: Files, passing: bool = False) -> None:
        """Write files. Raises OutputError."""
        for path, content in files.items():
            place = self.place(Path(path))
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            except OSError as error:
                raise output_error(place, error) from error
        if passing:
            self._passing |= set(files)

    def drop_but(self, kept: frozenset[str] | set[str]) -> None:
        """Take away the files of single frames that are not needed any more. Raises OutputError."""
        for path in self._passing - kept:
            place = self.place(Path(path))
            try:
                place.unlink(missing_ok=True)
            except OSError as error:
                raise output_error(place, error) from error
        self._passing &= kept

    def close(self) -> None:
        """Take everything away."""
        shutil.rmtree(self._root, ignore_errors=True)


def with_paths(value: Value, seen: Callable[[Path], Path]) -> Value:
    """The same plan with other paths, wherever they stand in it; and without `before`, which is found again.

    A shot is one long chain of frames before each other, too long to be sent.
    """
    changed: Any = value
    if isinstance(value, Path):
        changed = seen(value)
    elif isinstance(value, FrameJob):
        masks = tuple(map(seen, value.masks))
        changed = replace(value, source=seen(value.source), output=seen(value.output), masks=masks, before=None)
    elif isinstance(value, tuple):
        changed = tuple(with_paths(one, seen) for one in value)
    elif is_dataclass(value) and not isinstance(value, type):
        changed = replace(value, **{one.name: with_paths(getattr(value, one.name), seen) for one in fields(value)})
    result: Value = changed
    return result


def preset_with_paths(preset: Preset, seen: Callable[[Path], Path]) -> Preset:
    """The same preset with other paths."""
    return with_files(preset, [f"{key}={seen(Path(file))}" for key, file in files_of(preset).items()])


def _sweep(folder: Path) -> None:
    """Take away what killed workers of this machine left behind."""
    for path in folder.glob(f"{SCRATCH}*"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.name.removeprefix(SCRATCH).partition("-")[0])
            if not is_running(pid):
                shutil.rmtree(path, ignore_errors=True)
