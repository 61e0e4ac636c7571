"""Validation on generated shots: characters of families never trained on, colored the way a user's shot is."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.images import FORMATS, Picture
from colorcli.train.dataset import VALIDATION_SEED
from colorcli.train.drawings import VALIDATION_FAMILIES, design_character, draw

SIZE = (480, 540)  # of a validation frame, (width, height) in pixels

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ValidationShot:
    """A key and frames of one character, with the colors that are right."""

    key: Picture
    frames: tuple[Picture, ...]  # line art with the character as alpha
    truths: tuple[Floats, ...]  # (H, W, 3) 0..1, without lines


def validation_shots(
    count: int, frames: int = 2, families: Sequence[str] = tuple(VALIDATION_FAMILIES)
) -> list[ValidationShot]:
    """Draw `count` shots; every call gives the same ones."""
    shots = []
    for index in range(count):
        seed = VALIDATION_SEED + 1_000_000 + index
        character = design_character(seed, families[index % len(families)])
        rng = np.random.default_rng([seed, 5])
        poses = [int(pose) for pose in rng.integers(2**31, size=frames + 1)]
        key = draw(character, poses[0], SIZE, background="plain", framing="full")
        drawn = [draw(character, pose, SIZE, background="plain") for pose in poses[1:]]
        shots.append(
            ValidationShot(
                key=_picture(key.color, key.mask),
                frames=tuple(
                    _picture(cv2.cvtColor(drawing.line, cv2.COLOR_GRAY2RGB), drawing.mask) for drawing in drawn
                ),
                truths=tuple(drawing.flat.astype(np.float32) / 255.0 for drawing in drawn),
            )
        )
    return shots


def _picture(color: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Picture:
    return Picture(color.astype(np.float32) / 255.0, mask.astype(np.float32) / 255.0, FORMATS["png8"], 4)
