"""What lies behind a character: paper, a flat color, or a busy setting."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.train.drawings.character import cloth_color
from colorcli.train.drawings.curves import spline

BACKGROUNDS = ("plain", "flat", "busy")


def paint_background(
    kind: str, width: int, height: int, line_px: float, rng: np.random.Generator
) -> tuple[NDArray[np.uint8] | None, NDArray[np.uint8] | None]:
    """Colors (height, width, 3) and lines (height, width; 255 = full line) behind the character; None = blank paper."""
    assert kind in BACKGROUNDS, kind
    if kind == "plain":
        return None, None
    paper = np.empty((height, width, 3), np.uint8)
    paper[:] = cloth_color(rng)
    if kind == "flat":
        return paper, None
    ink = np.zeros((height, width), np.uint8)
    if rng.random() < 0.5:
        other = np.array(cloth_color(rng), float)
        ramp = np.linspace(0, 1, height)[:, None, None]
        paper[:] = np.round(paper[:1, :1] * (1 - ramp) + other * ramp).astype(np.uint8)
    thick = max(1, round(line_px))
    for _ in range(int(rng.integers(2, 9))):
        center = rng.uniform(0, 1, 2) * (width, height)
        radius = rng.uniform(0.05, 0.35) * height
        count = int(rng.integers(3, 9))
        angles = np.sort(rng.uniform(0, 2 * np.pi, count))
        reach = radius * rng.uniform(0.5, 1.0, count)
        blob = center + np.stack([reach * np.cos(angles), reach * np.sin(angles)], 1)
        outline = np.round(spline(blob, True, float(rng.uniform(0, 0.5)), 4) * 16).astype(np.int32)
        cv2.fillPoly(paper, [outline], tuple(int(v) for v in cloth_color(rng)), cv2.LINE_8, 4)
        cv2.fillPoly(ink, [outline], 0, cv2.LINE_8, 4)
        if rng.random() < 0.7:
            cv2.polylines(ink, [outline], True, 255, thick, cv2.LINE_AA, 4)
    if rng.random() < 0.5:
        level = int(rng.uniform(0.6, 0.95) * height)
        cv2.rectangle(paper, (0, level), (width, height), tuple(int(v) for v in cloth_color(rng)), -1)
        ink[level:] = 0
        cv2.line(ink, (0, level), (width, level), 255, thick)
    return paper, ink
