"""One shot, what a plain run makes of it, and whether another way of coloring it made bit by bit the same files.

    wanted = plain_run(tmp_path)                               # draws the shot, colors it in one run
    main([*command(wanted, tmp_path / "parts"), "--chunk", "1/2"])
    ...
    assert_same(wanted, tmp_path / "parts")
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from colorcli.images import FORMATS, read_picture, write_picture
from colorcli.shot.manifest import read_records
from tests.shot.studio import draw, draw_key

# Two sequences, one with a gap. Drawing 3 is held for three frames, and once more after another one.
WALK = {1: 11, 2: 12, 3: 3, 4: 3, 5: 3, 6: 14, 7: 3, 9: 15, 10: 16}
RUN = {1: 21, 2: 12}
SIZES = {10: (128, 96)}   # one frame is larger than the others
# Quick, and no way of splitting cares; of every region is told how sure it is.
SMALL = ("--set", "canvas.area=16384", "--set", "checks.unsure_below=1")
OURS = ("manifest.json", "frames")   # how files begin that are no pictures


@dataclass(frozen=True)
class Wanted:
    """A shot, and the files that every way of coloring it has to give."""

    shot: Path
    key: Path
    masks: Path                  # a folder with masks of some frames
    settings: tuple[str, ...]    # options that decide on the pictures
    files: Mapping[str, str]     # name -> SHA-256
    told: Mapping[str, object]   # name -> what the records tell of the frame

    @property
    def frames(self) -> int:
        """How many pictures there are."""
        return len(self.files)


def draw_same_shot(folder: Path) -> Path:
    """Draw the shot, its key and its masks: folder/shot, folder/key.png, folder/masks."""
    for name, frames in (("walk", WALK), ("run", RUN)):
        for number, drawing in frames.items():
            draw(folder / "shot" / f"{name}.{number:04d}.png", drawing, SIZES.get(number, (96, 64)))
    draw_key(folder / "key.png")
    (folder / "masks").mkdir()
    for number in (2, 6):
        mask = np.zeros((64, 96, 3), np.float32)
        mask[:, 10:80] = 1
        write_picture(folder / "masks" / f"walk.{number:04d}.png", mask, None, FORMATS["png8"])
    return folder / "shot"


def command(wanted: Wanted, out: Path, *more: str) -> list[str]:
    """What is typed behind `colorcli` to color the shot into `out`."""
    return [str(wanted.shot), "--ref", str(wanted.key), "--masks", str(wanted.masks), "-o", str(out), "-q",
            *wanted.settings, *more]


def process(wanted: Wanted, out: Path, *more: str, hash_seed: int = 0) -> subprocess.Popen[str]:
    """The same in a process of its own, just started."""
    line = [sys.executable, "-m", "colorcli", *command(wanted, out, *more)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": str(hash_seed)}
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=alone)


def plain_run(folder: Path, *settings: str, engine: str = "stand-in") -> Wanted:
    """Draw the shot in a folder, and color it in one run. settings: options that decide on the pictures."""
    from colorcli.cli.main import main

    asked = (*SMALL, *settings, "--engine", engine)
    wanted = Wanted(draw_same_shot(folder), folder / "key.png", folder / "masks", asked, {}, {})
    assert main(command(wanted, folder / "plain")) == 0
    files = files_in(folder / "plain")
    assert len([name for name in files if "/" not in name]) == len(WALK) + len(RUN)
    return replace(wanted, files=files, told=told_in(folder / "plain"))


def files_in(out: Path) -> dict[str, str]:
    """The SHA-256 of every file in OUT that is no record of ours, by name; hidden files too, for none may stay."""
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and not path.name.startswith(OURS)]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def told_in(out: Path) -> dict[str, object]:
    """What the records tell of every picture in OUT, by its name."""
    return {record.output: (record.checks, record.unsure) for record in read_records(out) if record.output}


def assert_same(wanted: Wanted, out: Path, but: Sequence[str] = ()) -> None:
    """Every file in OUT is as a plain run gives it, none is missing or too many, and the records say so.

    but: names of files that are not looked at.
    """
    found = files_in(out)
    missing, strange = set(wanted.files) - set(found) - set(but), set(found) - set(wanted.files) - set(but)
    assert not missing and not strange, f"missing {sorted(missing)}, and nobody asked for {sorted(strange)}"
    other = [name for name in wanted.files if name not in but and found[name] != wanted.files[name]]
    assert not other, f"{other} are other files than those of a plain run{_difference(wanted, out, other[0])}"
    recorded = {record.output: record.output_sha256 for record in read_records(out)}
    recorded |= {name: digest for record in read_records(out) for name, digest in record.outputs.items()}
    untrue = [name for name, digest in wanted.files.items() if name not in but and recorded.get(name) != digest]
    assert not untrue, f"the records of {untrue} are missing or tell of other files"
    told = told_in(out)
    otherwise = [name for name, what in wanted.told.items() if name not in but and told[name] != what]
    assert not otherwise, f"of {otherwise} something else is told than by a plain run"


def _difference(wanted: Wanted, out: Path, name: str) -> str:
    """In what a picture differs from that of the plain run, in words."""
    if Path(name).suffix == ".psd":
        return ""
    one, two = read_picture(wanted.shot.parent / "plain" / name), read_picture(out / name)
    if one.size != two.size:
        return f": {name} is {two.size}, not {one.size}"
    apart = np.abs(one.color - two.color).max(axis=-1)
    if not apart.any():
        return f": the pixels of {name} are the same, something beside them is not"
    return f": {(apart > 0).mean():.2%} of {name} differ, by up to {apart.max() * 255:.1f} of 255"
