"""What every part of a drawing needs to be drawn: the character, where it stands, and two streams of chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from colorcli.train.drawings.character import Character
from colorcli.train.drawings.curves import Points, close
from colorcli.train.drawings.parts import PART
from colorcli.train.drawings.pose import Figure
from colorcli.train.drawings.raster import RGB, Shape


@dataclass(frozen=True)
class Sketch:
    """One character in one pose, ready to be drawn."""

    character: Character
    figure: Figure
    rng: np.random.Generator  # this drawing's own chance
    expression: np.random.Generator  # chance of eyes and mouth, another one in each frame of a shot
    drag: float = 0.0  # how far loose hair and cloth trail to the right of the picture, -1..1

    def design(self, subject: int) -> np.random.Generator:
        """Chance that belongs to the character: the same in each of its drawings."""
        return np.random.default_rng((self.character.seed, 100 + subject))

    @property
    def front(self) -> float:
        """1 seen from the front, 0 from a side, -1 from the back."""
        return float(np.cos(self.figure.yaw))

    @property
    def turn(self) -> float:
        """1 facing right, -1 facing left."""
        return float(np.sin(self.figure.yaw))

    def height(self, share: float) -> float:
        """The height of a place on the upright torso: 0 the crotch, 1 the shoulders."""
        torso = self.figure.torso
        b = self.character.build
        return float(torso.y[0] + share * (1 - b.head - b.neck - b.legs))

    def shape(
        self,
        part: str,
        fills: Points | Sequence[Points],
        strokes: Sequence[Points] | None = None,
        details: Sequence[Points] = (),
        color: str | RGB | None = None,
        group: str = "",
        weight: float = 1.0,
        shadows: Sequence[Points] = (),
        shaded: bool = True,
        solid: bool = False,
    ) -> Shape:
        """A shape of a part in its palette color; without strokes, its whole outline is drawn."""
        polygons = (fills,) if isinstance(fills, np.ndarray) else tuple(fills)
        rgb = color if isinstance(color, tuple) else self.character.color(color or part)
        wobble = self.character.wobble
        if wobble and strokes is None and len(polygons) == 1 and len(polygons[0]) > 8:
            noise = self.rng.normal(0, wobble * 0.35, polygons[0].shape)
            polygons = (polygons[0] + (noise + np.roll(noise, 1, 0) + np.roll(noise, 2, 0)) / 2,)
        lines = tuple(close(p) for p in polygons) if strokes is None else tuple(strokes)
        ink = dict(self.character.faint).get(part, 1.0)
        solid = solid and self.character.solid and ink == 1.0
        own = tuple(int(v * 0.4) for v in rgb) if self.character.tinted else None
        line_color = (own[0], own[1], own[2]) if own else None
        return Shape(
            PART[part],
            rgb,
            polygons,
            lines,
            tuple(details),
            tuple(shadows),
            group,
            weight,
            ink,
            line_color,
            shaded,
            solid,
        )

    def on_torso(self, shapes: Sequence[Shape]) -> list[Shape]:
        """Shapes drawn on the upright torso, leaned with it."""
        turn = self.figure.on_torso
        return [moved(s, turn) for s in shapes]

    def on_head(self, shapes: Sequence[Shape]) -> list[Shape]:
        """Shapes drawn in the skull's axes, put where the head is."""
        turn = self.figure.on_head
        return [moved(s, turn) for s in shapes]


def moved(shape: Shape, move: Callable[[Points], Points]) -> Shape:
    """The shape with all its outlines and lines moved alike."""
    return replace(
        shape,
        fills=tuple(move(p) for p in shape.fills),
        strokes=tuple(move(p) for p in shape.strokes),
        details=tuple(move(p) for p in shape.details),
        shadows=tuple(move(p) for p in shape.shadows),
    )
