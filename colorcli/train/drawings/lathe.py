"""A turned solid: elliptic slices along a height, and how drawings on its surface look from any side.

A head and a torso are such solids. Whatever is drawn on one (a lapel, an eye, a hairline) is given as an angle around
it and a height; turned out of sight, it is pushed to the silhouette. So one design serves every view.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from colorcli.train.drawings.curves import Points, spline

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Lathe:
    """Elliptic slices, bottom first."""

    y: Floats  # (K,) heights, rising
    width: Floats  # (K,) half width of each slice
    depth: Floats  # (K,) half depth
    center: Floats  # (K,) how far the slice's center lies to the front

    @classmethod
    def through(cls, slices: ArrayLike, roundness: float = 0.5) -> Lathe:
        """A smooth solid through control slices (K, 4): height, half width, half depth, center."""
        control = np.asarray(slices, float)
        pairs = [spline(control[:, [0, k]], roundness=roundness, steps=6)[:, 1] for k in (1, 2, 3)]
        heights = np.concatenate(
            [np.linspace(a, b, 7)[:-1] for a, b in zip(control[:-1, 0], control[1:, 0], strict=True)]
        )
        heights = np.append(heights, control[-1, 0])
        return cls(heights, np.maximum(pairs[0], 1e-4), np.maximum(pairs[1], 1e-4), pairs[2])

    def extended(self, y: float, width: float, depth: float, start: float) -> Lathe:
        """The part above `start`, going on straight down to a slice at height y."""
        keep = self.y > start
        w, d, c = (float(np.interp(start, self.y, k)) for k in (self.width, self.depth, self.center))
        t = np.linspace(0, 1, 8)
        return Lathe(
            np.concatenate([y + (start - y) * t, self.y[keep]]),
            np.concatenate([width + (w - width) * t, self.width[keep]]),
            np.concatenate([depth + (d - depth) * t, self.depth[keep]]),
            np.concatenate([np.full(8, c), self.center[keep]]),
        )

    def grown(self, by: float) -> Lathe:
        """The same solid with cloth of this thickness around it."""
        return Lathe(self.y, self.width + by, self.depth + by, self.center)

    def slice_at(self, y: ArrayLike) -> tuple[Floats, Floats, Floats]:
        """Half width, half depth and center at heights y."""
        at = np.asarray(y, float)
        return (
            np.interp(at, self.y, self.width),
            np.interp(at, self.y, self.depth),
            np.interp(at, self.y, self.center),
        )

    def side(self, y: ArrayLike, yaw: float, sign: float) -> Points:
        """The silhouette to the right (sign 1) or left (-1) at heights y, seen with the solid turned by yaw."""
        at = np.asarray(y, float)
        w, d, c = self.slice_at(at)
        return np.stack([sign * np.hypot(w * np.cos(yaw), d * np.sin(yaw)) + c * np.sin(yaw), at], 1)

    def place(self, theta: ArrayLike, y: ArrayLike, yaw: float, bow: float = 0.0) -> Points:
        """Points of the surface as seen: theta (N,) radians from the front to the solid's own left, y (N,) heights.

        Points out of sight lie on the silhouette. bow: how much a level line sags in its middle, as a share of the
        radius (a camera above it).
        """
        at = np.broadcast_to(np.asarray(y, float), np.shape(theta))
        w, d, c = self.slice_at(at)
        x, z = w * np.cos(yaw), d * np.sin(yaw)
        radius, turn = np.hypot(x, z), np.arctan2(z, x)
        angle = np.asarray(theta, float) + turn
        # The whole curve moves by full turns, never single points: it must not be torn across the back.
        angle = angle - 2 * np.pi * np.round(angle.mean() / (2 * np.pi))
        angle = np.clip(angle, -np.pi / 2, np.pi / 2)
        return np.stack([radius * np.sin(angle) + c * np.sin(yaw), at - bow * radius * np.cos(angle)], 1)

    def facing(self, theta: float, y: float, yaw: float) -> float:
        """How squarely a spot of the surface faces us: 1 straight, 0 at the silhouette, negative behind."""
        w, d, _ = self.slice_at(y)
        return float(np.cos(theta + np.arctan2(d * np.sin(yaw), w * np.cos(yaw))))

    def shell(
        self, top: float, bottom: float, yaw: float, bow: float = 0.1, bow_top: float = 0.0, count: int = 14
    ) -> Points:
        """The closed outline of the solid between two heights: left side down, hem, right side up, upper rim."""
        heights = np.linspace(top, bottom, count)
        around = np.linspace(-np.pi / 2, np.pi / 2, 9)
        parts = [self.side(heights, yaw, -1.0)]
        for at, sag, sweep in ((bottom, bow, around), (top, bow_top, around[::-1])):
            w, d, c = self.slice_at(at)
            radius = np.hypot(w * np.cos(yaw), d * np.sin(yaw))
            rim = np.stack([radius * np.sin(sweep) + c * np.sin(yaw), at - sag * radius * np.cos(sweep)], 1)
            parts.append(rim[1:-1])
            if at == bottom:
                parts.append(self.side(heights[::-1], yaw, 1.0))
        return np.concatenate(parts)
