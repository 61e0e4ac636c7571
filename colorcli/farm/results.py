"""Where the results of a job lie."""

import os
from collections.abc import Sequence
from pathlib import Path

from colorcli.errors import ShotError
from colorcli.shot.manifest import MANIFEST_NAME


def find_results(outs: Sequence[Path]) -> list[Path]:
    """Every folder of a tree that colorcli has written, in order of their names. Raises ShotError if there is none."""
    found: list[Path] = []
    for out in outs:
        here = [folder for folder in _folders(out) if (folder / MANIFEST_NAME).is_file()]
        if not here:
            raise ShotError(f"nothing was colored into {out}", hint="give the folder that the tasks wrote to")
        found += here
    return found


def _folders(root: Path) -> list[Path]:
    """root and every folder under it; links are not followed, and hidden ones are passed over."""
    folders = []
    for folder, below, _ in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        folders.append(Path(folder))
    return folders
