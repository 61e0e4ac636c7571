"""Shots to measure on: drawings of one generated character, the same ones every time."""

import shutil
from pathlib import Path

import numpy as np

from colorcli.images import FORMATS, read_picture, write_picture
from colorcli.train.drawings import design_character, draw

CHARACTER = 7  # the seed of the character
SIZES = ((512, 512), (1280, 720))


def write_shot(folder: Path, size: tuple[int, int], frames: int) -> tuple[Path, Path]:
    """Draw a shot of line art and its key: (folder of the frames, key). size: (width, height)."""
    character = design_character(CHARACTER)
    shot = folder / f"shot_{size[0]}x{size[1]}"
    shot.mkdir(parents=True)
    for number in range(frames + 1):
        drawing = draw(character, number, size, view="front", background="plain", framing="full")
        if number == 0:
            key = folder / f"key_{size[0]}x{size[1]}.png"
            write_picture(key, np.asarray(drawing.color / 255, np.float32), None, FORMATS["png8"])
        else:
            line = np.asarray(np.repeat(drawing.line[:, :, None], 3, axis=2) / 255, np.float32)
            write_picture(shot / f"walk.{number:04}.png", line, None, FORMATS["png8"])
    return shot, key


def hold(shot: Path, times: int, *, alike: bool = True) -> Path:
    """Copy a shot so that every drawing stands for `times` frames, beside it; gives the new folder.

    alike: False gives every copy a few bytes and pixels of its own, so that none is a held drawing.
    """
    held = shot.with_name(f"{shot.name}_on_{times}")
    held.mkdir()
    for place, file in enumerate(sorted(shot.iterdir())):
        picture = None if alike else read_picture(file)
        for again in range(times):
            copy = held / f"walk.{place * times + again + 1:04}.png"
            if picture is None:
                shutil.copyfile(file, copy)
            else:
                picture.color[0, :2, 0] = np.float32(np.array(divmod(again, 256)) / 255)
                write_picture(copy, picture.color, None, FORMATS["png8"])
    return held
