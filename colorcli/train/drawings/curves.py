"""Curves in the plane: splines through control points, and the outlines of limbs.

Points are (N, 2) float64 arrays of x and y, in figure units (1 = the standing height) with y up.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]


@lru_cache(maxsize=16)
def _hermite(steps: int) -> NDArray[np.float64]:
    """The cubic Hermite basis at `steps` places of a segment, end left out: (steps, 4)."""
    t = np.arange(steps) / steps
    return np.stack([2 * t**3 - 3 * t**2 + 1, t**3 - 2 * t**2 + t, -2 * t**3 + 3 * t**2, t**3 - t**2], axis=1)


def spline(control: ArrayLike, closed: bool = False, roundness: float = 0.5, steps: int = 5) -> Points:
    """A cardinal spline through control points (K, 2); roundness 0 gives straight edges, 0.5 Catmull-Rom.

    A closed one does not repeat its first point.
    """
    points = np.asarray(control, float)
    if closed:
        before, after = np.roll(points, 1, 0), np.roll(points, -1, 0)
        slope = roundness * (after - before)
        start, end, out_slope, in_slope = points, after, slope, np.roll(slope, -1, 0)
    else:
        padded = np.concatenate([points[:1], points, points[-1:]])
        slope = roundness * (padded[2:] - padded[:-2])
        start, end, out_slope, in_slope = points[:-1], points[1:], slope[:-1], slope[1:]
    knots = np.stack([start, out_slope, end, in_slope], axis=1)  # (S, 4, 2)
    curve = np.matmul(_hermite(steps), knots).reshape(-1, 2)  # (S*steps, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def close(points: Points) -> Points:
    """The same outline as a stroke that ends where it began."""
    return np.concatenate([points, points[:1]])


def ellipse(center: ArrayLike, rx: float, ry: float, turn: float = 0.0, count: int = 20) -> Points:
    """An ellipse of half axes rx and ry, turned by `turn` radians."""
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.asarray(center, float) + rotated(np.stack([rx * np.cos(t), ry * np.sin(t)], 1), turn)


def rotated(points: Points, angle: float, about: ArrayLike = (0.0, 0.0)) -> Points:
    """Points turned counter-clockwise by `angle` radians about a point."""
    c, s = np.cos(angle), np.sin(angle)
    pivot = np.asarray(about, float)
    return (np.asarray(points, float) - pivot) @ np.array([[c, s], [-s, c]]) + pivot


def unit(vector: ArrayLike) -> NDArray[np.float64]:
    """The vector at length 1, or (0, -1) for one too short to have a direction."""
    v = np.asarray(vector, float)
    length = float(np.hypot(v[0], v[1]))
    return v / length if length > 1e-9 else np.array([0.0, -1.0])


def offsets(path: Points, half_width: NDArray[np.float64]) -> tuple[Points, Points]:
    """The left and right side of a path (N, 2), at half_width (N,) from it."""
    along = np.gradient(path, axis=0)
    along /= np.maximum(np.hypot(along[:, :1], along[:, 1:]), 1e-9)
    side = np.stack([-along[:, 1], along[:, 0]], 1) * half_width[:, None]
    return path + side, path - side


def cap(end: NDArray[np.float64], direction: NDArray[np.float64], radius: float, count: int = 5) -> Points:
    """A half circle at the end of a stroke, from its left side to its right."""
    t = np.linspace(np.pi / 2, -np.pi / 2, count)
    ahead, left = direction, np.array([-direction[1], direction[0]])
    return end + radius * (np.cos(t)[:, None] * ahead + np.sin(t)[:, None] * left)


def capsule(start: ArrayLike, end: ArrayLike, r0: float, r1: float) -> Points:
    """A finger: an open outline from the left of its root around the tip to the right of its root."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    direction = unit(b - a)
    left = np.array([-direction[1], direction[0]])
    return np.concatenate([[a + left * r0], cap(b, direction, r1), [a - left * r0]])


def _crossing(first: Points, second: Points) -> tuple[int, int, NDArray[np.float64]] | None:
    """Where two open polylines cross: the segment of each and the point; None where they do not."""
    p, r = first[:-1, None], np.diff(first, axis=0)[:, None]
    q, s = second[None, :-1], np.diff(second, axis=0)[None]
    cross = r[..., 0] * s[..., 1] - r[..., 1] * s[..., 0]
    cross = np.where(np.abs(cross) < 1e-12, 1e-12, cross)
    gap = q - p
    t = (gap[..., 0] * s[..., 1] - gap[..., 1] * s[..., 0]) / cross
    u = (gap[..., 0] * r[..., 1] - gap[..., 1] * r[..., 0]) / cross
    hits = np.argwhere((t >= 0) & (t <= 1) & (u >= 0) & (u <= 1))
    if not len(hits):
        return None
    i, j = hits[0]
    return int(i), int(j), first[i] + t[i, j] * (first[i + 1] - first[i])


def limb(joints: Sequence[ArrayLike], widths: Sequence[float], samples: int = 7) -> tuple[Points, Points]:
    """The two sides of a bent limb through three joints, each from its first joint to its last.

    widths: half widths at the first joint, the middle of the first bone, the second joint, the middle of the second
    bone and the last joint. The inner side of a bend is cut where its halves cross.
    """
    a, b, c = (np.asarray(j, float) for j in joints)
    t = np.linspace(0, 1, samples)[:, None]
    upper, lower = a + (b - a) * t, b + (c - b) * t
    w_upper = np.interp(t[:, 0], [0, 0.5, 1], widths[:3])
    w_lower = np.interp(t[:, 0], [0, 0.5, 1], widths[2:])
    sides = []
    for first, second in zip(offsets(upper, w_upper), offsets(lower, w_lower), strict=True):
        hit = _crossing(first, second)
        if hit is not None:
            i, j, point = hit
            side = np.concatenate([first[: i + 1], [point], second[j + 1 :]])
        else:
            bend = (first[-1] + second[0]) / 2
            away = unit(bend - b) * widths[2]
            side = np.concatenate([first[:-1], [b + away], second[1:]])
        sides.append(side)
    return sides[0], sides[1]
