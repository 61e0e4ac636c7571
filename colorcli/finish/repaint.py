"""What a production's palette makes of the colors of a key; a color and its shadow stay a color and its shadow."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from colorcli.finish.difference import ciede2000, lab_of
from colorcli.images import decode_srgb, encode_srgb
from colorcli.prepare.palette_file import Swatches

Float = NDArray[np.float32]
How = Literal["swatch", "step", "stays"]


@dataclass(frozen=True)
class Repainted:
    """The colors of a key's palette, by a production's."""

    colors: Float          # (K, 3) sRGB-encoded, 0..1
    how: tuple[How, ...]   # swatch: one of the file's; step: a shadow that goes with its color; stays: the key's own
    unused: tuple[int, ...] = ()   # swatches that no color has

    def that(self, how: How) -> list[int]:
        """The numbers of the colors that came about in one way."""
        return [number for number, one in enumerate(self.how) if one == how]


def repaint(palette: Float, shadows: NDArray[np.int32], swatches: Swatches | None, reach: float) -> Repainted:
    """Give each color of a key's palette the production's.

    palette: (K, 3). shadows: (K,) for each color the one that it is the shadow of, or itself. reach: the largest
    CIEDE2000 distance between a color and its swatch. A color without a swatch stays. A shadow has, of the swatches
    that its color's is paired with by name, the nearest one, near or not; else the nearest within reach that is no
    other color's and darker than its own color's; else it goes with its color, or with the next lighter shadow of that:
    `in_step`. In a swap each old color is the key's nearest one, and a new shadow may be lighter than its color.
    """
    if swatches is None or not len(palette):
        stays: How = "stays"
        return Repainted(palette, (stays,) * len(palette))
    distance = ciede2000(lab_of(palette)[:, None], lab_of(swatches.colors)[None])  # (K, S)
    if swatches.swapped is not None:   # each old color is that color of the key that is nearest to it, and no other
        distance[np.arange(len(palette))[:, None] != distance.argmin(axis=0)[None]] = np.inf
    task = _Task(palette, shadows, swatches, distance, reach)
    for lit in np.unique(shadows):
        task.repaint_lit(int(lit))
    light = lab_of(palette)[:, 0]
    for lit in np.unique(shadows):
        tones = np.flatnonzero(shadows == lit)
        tones = tones[tones != lit]
        task.repaint_shadows(int(lit), [int(tone) for tone in tones[np.argsort(-light[tones], kind="stable")]])
    used = set(task.swatch.values())
    unused = tuple(number for number in range(len(swatches.colors)) if number not in used)
    return Repainted(task.colors, tuple(task.how), unused)


def in_step(color: Float, was: Float, shadow: Float) -> Float:
    """Give the shadow (3,) that a repainted color has if `shadow` was that of the color before, `was`.

    In linear light and for each channel, new shadow = new color * old shadow / old color: what the shadow lets through
    stays the same, as with a layer that is multiplied. A channel that was 0 is not darkened. All sRGB-encoded, 0..1.
    """
    before = decode_srgb(was)
    through = np.where(before > 0, decode_srgb(shadow) / np.maximum(before, np.float32(1e-9)), np.float32(1))
    return encode_srgb(decode_srgb(color) * through)


@dataclass
class _Task:
    """A palette on its way to the production's."""

    palette: Float
    shadows: NDArray[np.int32]
    swatches: Swatches
    distance: NDArray[np.float64]   # (K, S)
    reach: float
    colors: Float = field(init=False)
    how: list[How] = field(init=False)
    swatch: dict[int, int] = field(default_factory=dict)   # of each palette color that has one

    def __post_init__(self) -> None:
        self.colors, self.how = self.palette.copy(), ["stays"] * len(self.palette)

    def repaint_lit(self, number: int) -> None:
        """Give a color that is no shadow its swatch, if it has one."""
        nearest = int(self.distance[number].argmin())
        if self.distance[number, nearest] <= self.reach:
            self._take(number, nearest)

    def repaint_shadows(self, lit: int, tones: Sequence[int]) -> None:
        """Give the shadows of a color, lightest first, theirs."""
        own = self.swatch.get(lit)
        named = [dark for light, dark in self.swatches.pairs if light == own]
        above, used = lit, {own}
        for tone in tones:
            left = [number for number in named if number not in used]
            free = left or [number for number in self._free(tone, lit, above) if number not in used]
            if free:
                chosen = min(free, key=lambda number: (self.distance[tone, number], number))
                self._take(tone, chosen)
                used.add(chosen)
            elif self.how[above] != "stays":
                self.colors[tone] = in_step(self.colors[above], self.palette[above], self.palette[tone])
                self.how[tone] = "step"
            above = tone

    def _free(self, tone: int, lit: int, above: int) -> list[int]:
        """The swatches within reach of a shadow that may be its own."""
        near = [int(number) for number in np.flatnonzero(self.distance[tone] <= self.reach)]
        if self.swatches.swapped is not None:
            return near
        others = {dark for light, dark in self.swatches.pairs if light != self.swatch.get(lit)}
        brightness = lab_of(self.swatches.colors[near])[:, 0] if near else np.zeros(0)
        darker = brightness < lab_of(self.colors[above])[0]
        return [
            number
            for number, dark in zip(near, darker, strict=True)
            if dark and number not in others and not self._is_nearer_to_another(tone, number)
        ]

    def _is_nearer_to_another(self, tone: int, swatch: int) -> bool:
        """Whether another color has a swatch, and is no farther from it."""
        near = self.distance[tone, swatch]
        return any(self.distance[color, swatch] <= near for color, taken in self.swatch.items() if taken == swatch)

    def _take(self, number: int, swatch: int) -> None:
        given = self.swatches.colors if self.swatches.swapped is None else self.swatches.swapped
        self.colors[number], self.how[number], self.swatch[number] = given[swatch], "swatch", swatch
