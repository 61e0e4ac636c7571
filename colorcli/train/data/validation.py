"""Validation on generated shots: characters of families never trained on, as files that `evaluate` reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.images import FORMATS, write_picture
from colorcli.train.data.characters import VALIDATION_SEED
from colorcli.train.drawings import VALIDATION_FAMILIES, design_character, draw

SIZE = (480, 540)  # of a frame, (width, height) in pixels


def write_validation_shots(
    folder: Path,
    count: int,
    frames: int = 2,
    families: Sequence[str] = tuple(VALIDATION_FAMILIES),
    *,
    moving: bool = False,
) -> None:
    """Draw `count` shots into `folder`, each with `line/`, `color/` and `key.png`; every call draws the same ones.

    moving: the key is of the same shot, and only limbs move; else every frame is another pose and view.
    """
    for index in range(count):
        seed = VALIDATION_SEED + 1_000_000 + index
        character = design_character(seed, families[index % len(families)])
        poses = np.random.default_rng([seed, 5]).integers(2**31, size=frames + 1)
        shot = folder / f"{character.family}_{index:03d}"
        for part in ("line", "color"):
            (shot / part).mkdir(parents=True)
        sway = 0 if moving else None
        key = draw(character, int(poses[0]), SIZE, background="plain", framing="full", sway=sway)
        _write(shot / "key.png", key.color, key.mask)
        for number, pose in enumerate(poses[1:], start=1):
            if moving:
                drawing = draw(character, int(poses[0]), SIZE, background="plain", framing="full", sway=number)
            else:
                drawing = draw(character, int(pose), SIZE, background="plain")
            name = f"{shot.name}.{number:04d}.png"
            _write(shot / "line" / name, cv2.cvtColor(drawing.line, cv2.COLOR_GRAY2RGB), drawing.mask)
            _write(shot / "color" / name, drawing.color, drawing.mask)


def _write(path: Path, color: NDArray[Any], mask: NDArray[np.uint8]) -> None:
    color, cover = (np.asarray(image, np.float32) / np.float32(255) for image in (color, mask))
    write_picture(path, color, cover, FORMATS["png8"])
