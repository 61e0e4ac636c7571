"""Draws a sample shot: a walk of a generated character, and its key in another pose.

    python samples/make_samples.py

It draws with the generator of today; the pictures that lie here are by an earlier one, and tests know their colors.
"""

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from colorcli.images import FORMATS, write_picture
from colorcli.train.drawings import Drawing, design_character, raster
from colorcli.train.drawings.character import Character
from colorcli.train.drawings.drawing import compose
from colorcli.train.drawings.pose import Pose, Vector, place_figure
from colorcli.train.drawings.sketch import Sketch

FRAMES = 12
SIZE = (960, 720)   # width, height in pixels
SEED = 70_056       # of the character; not among those that mini is trained on
FAMILY = "adult"
YAW = 1.05          # the walk is seen from the side, a little from the front


STANDING = Pose(
    "stand",
    ((0.45, -1, 0), (0.45, -1, 0)),
    ((0.35, -1, 0.1), (0.35, -1, 0.1)),
    ((0.12, -1, 0), (0.12, -1, 0)),
    ((0.1, -1, 0), (0.1, -1, 0)),
    ("open", "open"),
)


def bone(angle: float, outwards: float = 0.06) -> Vector:
    """A bone hanging down, swung forward by `angle` radians."""
    return (outwards, -math.cos(angle), math.sin(angle))


def walk_pose(phase: float) -> Pose:
    """One moment of a walk; phase 0..1 is a whole step of both legs."""
    turn = 2 * math.pi * phase
    thighs = [0.45 * math.sin(turn), -0.45 * math.sin(turn)]
    # The knee of the leg that swings forward is bent most halfway.
    bends = [0.15 + 0.6 * max(0.0, math.cos(turn)), 0.15 + 0.6 * max(0.0, -math.cos(turn))]
    arms = [-0.5 * math.sin(turn), 0.5 * math.sin(turn)]
    return Pose(
        "walk",
        (bone(arms[0], 0.16), bone(arms[1], 0.16)),
        (bone(arms[0] + 0.35, 0.08), bone(arms[1] + 0.35, 0.08)),
        (bone(thighs[0]), bone(thighs[1])),
        (bone(thighs[0] - bends[0]), bone(thighs[1] - bends[1])),
        ("relaxed", "relaxed"),
        (0.0, 0.04),
    )


def draw_pose(character: Character, pose: Pose, yaw: float) -> Drawing:
    """Draw a character on white; the figure has one size and place in all pictures."""
    width, height = SIZE
    rng = np.random.default_rng((character.seed, 9))  # the same hand draws every frame
    face = np.random.default_rng((character.seed, 10))
    sketch = Sketch(character, place_figure(character.build, pose, yaw), rng, face)
    scale = 0.86 * height
    to_picture = (scale, width / 2, height * 0.95)
    layers = raster.new_layers(width, height)
    raster.draw_shapes(layers, compose(sketch), to_picture, character.pen, character.shading, rng)
    white = np.full((height * raster.SCALE, width * raster.SCALE, 3), 255, np.uint8)
    no_ink = np.zeros((height * raster.SCALE, width * raster.SCALE), np.uint8)
    pictures = raster.develop(layers, white, no_ink, character.shading, character.pen)
    mask = np.where(pictures.parts > 0, np.uint8(255), np.uint8(0))
    tags = np.zeros(0, np.float32)
    return Drawing(pictures.color, pictures.flat, pictures.line, mask, pictures.parts, pictures.regions, tags)


def main() -> None:
    """Write walk/walk.####.png and walk_key.png beside this file."""
    folder = Path(__file__).parent
    (folder / "walk").mkdir(exist_ok=True)
    character = design_character(SEED, FAMILY)
    character = replace(character, pen=replace(character.pen, gaps=0.0, missing=0.0))  # clean, closed lines
    for frame in range(FRAMES):
        line = draw_pose(character, walk_pose(frame / FRAMES), YAW).line
        color = cv2.cvtColor(line, cv2.COLOR_GRAY2RGB).astype(np.float32) / 255
        write_picture(folder / "walk" / f"walk.{frame + 1:04d}.png", color, None, FORMATS["png8"])
    key = draw_pose(character, STANDING, 0.5)
    write_picture(folder / "walk_key.png", key.color.astype(np.float32) / 255, None, FORMATS["png8"])


if __name__ == "__main__":
    main()
