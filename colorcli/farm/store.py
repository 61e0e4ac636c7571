"""Files of another machine, kept here while a worker needs them."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from colorcli.farm.orders import Files
from colorcli.shot.manifest import output_error
from colorcli.whole_file import is_running

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


def _sweep(folder: Path) -> None:
    """Take away what killed workers of this machine left behind."""
    for path in folder.glob(f"{SCRATCH}*"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.name.removeprefix(SCRATCH).partition("-")[0])
            if not is_running(pid):
                shutil.rmtree(path, ignore_errors=True)
