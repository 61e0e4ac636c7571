"""Heads: skull and profile, hair, ears, the features of the face, beards, glasses and hats."""

# ruff: noqa: RUF005 - here + moves points, it does not join lists.

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from colorcli.train.drawings import trimmings
from colorcli.train.drawings.curves import Points, close, ellipse, offsets, spline
from colorcli.train.drawings.lathe import Lathe
from colorcli.train.drawings.raster import Shape
from colorcli.train.drawings.sketch import Sketch


@dataclass(frozen=True)
class HeadShapes:
    """A head in three layers, to go before, between and over the body's own."""

    behind: list[Shape]  # behind the body
    back: list[Shape]  # over the torso, behind the head
    front: list[Shape]


def _smoothstep(x: float) -> float:
    t = min(max(x, 0.0), 1.0)
    return t * t * (3 - 2 * t)


def _profile(sk: Sketch, heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far nose, lips and chin stand out of the skull at heights (shares of the head), seen from the side."""
    n = sk.character.build.nose
    d = sk.design(50)
    tip = d.uniform(0.3, 0.36)
    amount = 0.13 * n
    e = sk.design(49)
    strong = e.random() < 0.35  # a face of bumps: brow, bridge, lips and chin stand out
    bump = e.uniform(0.3, 1.0, 4) * strong
    knots = [0.0, 0.05, 0.1, 0.13, 0.17, 0.2, 0.22, tip - 0.05, tip, 0.42, 0.47, 0.52, 0.6, 1.0]
    chin = d.uniform(0.0, 0.04) + 0.05 * bump[0]
    out = [
        chin * 0.6,
        chin,
        -0.015 * bump[0],
        0.012 + 0.02 * bump[1],
        0.028 + 0.025 * bump[1],
        0.012,
        0.03 + 0.03 * bump[1],
        amount * 0.35 + 0.015,
        amount,
        amount * (0.4 + 0.35 * bump[2]),
        -0.01 * bump[3],
        0.012 + 0.025 * bump[3],
        0.01,
        0.0,
    ]
    return np.interp(heights, knots, out) * sk.character.build.head


def _face_outline(sk: Sketch) -> Points:
    """The skull with the face's profile, closed, from the chin up its right side and down its left."""
    f, b = sk.figure, sk.character.build
    yaw = f.head_yaw
    share = np.concatenate([np.linspace(0.0, 0.6, 25), np.linspace(0.64, 1.0, 10)])
    heights = share * b.head
    s, c = np.sin(yaw), np.cos(yaw)
    strength = _smoothstep((abs(s) - 0.5) / 0.4) * _smoothstep((c + 0.45) / 0.3)
    sides = []
    for sign in (1.0, -1.0):
        side = f.skull.side(heights, yaw, sign)
        if sign * s > 0 and strength > 0:
            side[:, 0] += sign * strength * _profile(sk, share)
        sides.append(side)
    middle = (sides[0][0] + sides[1][0]) / 2 - [0, 0.012 * b.head]
    return np.concatenate([sides[0], sides[1][::-1], middle[None]])


def _face_line(sk: Sketch, outline: Points) -> Points:
    """The line around the face; seen from a side, the jaw may stay open below the ear."""
    share = sk.character.open_jaw
    turn = float(np.sin(sk.figure.head_yaw))
    if share <= 0 or abs(turn) < 0.6:
        return close(outline)
    low, high = int(2 + 9 * (1 - share)), 13  # points of a side, chin first
    if turn > 0:  # the nape is to the left, which the outline comes down last
        start, stop = 70 - high, 70 - low
    else:
        start, stop = low, high
    return np.concatenate([outline[stop:], outline[: start + 1]])


def _hairline(sk: Sketch, theta: ArrayLike) -> NDArray[np.float64]:
    """Height of the hair's edge (share of the head) around the head, before the fringe's locks."""
    h = sk.character.hair
    d = sk.design(51)
    around = np.abs(np.angle(np.exp(1j * np.asarray(theta, float))))
    ear = d.uniform(0.4, 0.52)
    nape = d.uniform(0.08, 0.2) if h.style not in ("bun", "ponytail") else 0.18
    temple = h.hairline - d.uniform(0.0, 0.06)
    return np.interp(
        np.degrees(around),
        [0, 22, 40, 58, 68, 80, 92, 104, 125, 180],
        [
            h.hairline - d.uniform(0, 0.05),
            h.hairline,
            temple + d.uniform(0, 0.05),
            temple - 0.06,
            ear + 0.12,
            ear,
            ear - 0.02,
            0.3,
            nape + 0.03,
            nape,
        ],
    )


def _fringe(sk: Sketch, theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far locks hang below the hairline over the forehead, share of the head."""
    h, b = sk.character.hair, sk.character.build
    angle = np.degrees(np.angle(np.exp(1j * theta)))
    room = max(h.hairline - b.eye_height - 0.1, 0.05)
    reach = np.clip((70 - np.abs(angle)) / 14, 0, 1)
    d = sk.design(52)
    if h.fringe == "none":
        return np.zeros_like(theta)
    if h.fringe == "straight":
        return reach * room * d.uniform(0.5, 1.0)
    if h.fringe == "jagged":
        teeth = d.integers(3, 8)
        phase = d.uniform(0, 1)
        wave = np.abs(((angle / 140 * teeth + phase) % 1) * 2 - 1)
        deep = np.interp(angle, np.linspace(-70, 70, 8), d.uniform(0.5, 1.25, 8))
        return reach * room * (0.25 + 0.85 * wave) * deep
    part = d.uniform(-30, 30)
    return reach * room * np.clip(np.abs(angle - part) / 45, 0, 1) ** 0.8 * d.uniform(0.7, 1.3)


def _crown(sk: Sketch, lathe: Lathe, low_right: float, low_left: float, lift: float) -> Points:
    """The contour over the head, from its right side at a height (share) to its left."""
    b = sk.character.build
    sides = []
    for sign, low in ((1.0, low_right), (-1.0, low_left)):
        share = np.concatenate([np.linspace(low, 0.9, 10), [0.94, 0.97, 0.99, 1.0]])
        side = lathe.side(share * b.head, sk.figure.head_yaw, sign)
        side[:, 1] += lift * b.head * np.clip((share - 0.4) / 0.6, 0, 1)
        sides.append(side)
    return np.concatenate([sides[0], sides[1][::-1]])


def _along(path: Points, count: int) -> tuple[Points, Points]:
    """`count` evenly spaced points of a path and the outward normals of a path that runs counter-clockwise."""
    steps = np.hypot(*np.diff(path, axis=0).T)
    place = np.concatenate([[0], np.cumsum(steps)])
    t = np.linspace(0, place[-1], count)
    even = np.stack([np.interp(t, place, path[:, 0]), np.interp(t, place, path[:, 1])], 1)
    along = np.gradient(even, axis=0)
    normal = np.stack([along[:, 1], -along[:, 0]], 1) / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    return even, normal


def _locks(sk: Sketch, contour: Points) -> Points:
    """Give a smooth hair contour its spikes or curls."""
    h, b = sk.character.hair, sk.character.build
    d = sk.design(53)
    if h.style == "spiky":
        n = h.spikes
        even, normal = _along(contour, 2 * n + 1)
        height = d.uniform(0.4, 1.2, n) * h.spike * b.head
        if sk.design(88).random() < 0.4:  # only over the forehead; the back of the head is combed
            ahead = 0.5 - 0.3 * float(np.sin(sk.figure.head_yaw))
            height = height * np.clip(1.3 - np.abs((np.arange(n) + 0.5) / n - ahead) / 0.3, 0.03, 1)
        lean = d.uniform(-0.8, 0.8) + d.normal(0, 0.3, n)
        tips = (
            even[1::2]
            + normal[1::2] * height[:, None]
            + np.stack([normal[1::2, 1], -normal[1::2, 0]], 1) * (lean * height)[:, None]
        )
        tips[:, 1] += 0.4 * height
        out = even.copy()
        out[1::2] = tips
        return spline(out, roundness=d.uniform(0.0, 0.12), steps=3)
    if h.style in ("curly", "afro"):
        n = int(d.integers(9, 18))
        even, normal = _along(contour, 2 * n + 1)
        out = even.copy()
        out[1::2] += normal[1::2] * 0.05 * b.head
        out[::2] -= normal[::2] * 0.012 * b.head
        return spline(out, roundness=0.6, steps=4)
    if d.random() < 0.5:
        even, normal = _along(contour, 15)
        even[1:-1] += normal[1:-1] * d.uniform(-0.01, 0.03, 13)[:, None] * b.head
        if d.random() < 0.35:  # combed to one side, with its volume there
            side = np.sin(np.linspace(0, np.pi, 15)) * np.clip(np.linspace(1, -0.3, 15) * d.choice([-1, 1]), -0.2, 1)
            even += normal * side[:, None] * d.uniform(0.03, 0.12) * b.head
        if d.random() < 0.4:  # a few stray locks
            for k in d.integers(3, 12, 3):
                even[k] += normal[k] * h.spike * 0.6 * b.head
        return spline(even, roundness=d.uniform(0.1, 0.5), steps=3)
    return contour


def _cap(sk: Sketch) -> list[Shape]:
    """The hair on the skull, as far as it is seen."""
    f, c = sk.figure, sk.character
    b, h = c.build, c.hair
    yaw = f.head_yaw
    lathe = f.skull.grown(h.volume * 0.55 * b.head)
    tight = f.skull.grown(0.006 * b.head)
    w, depth, _ = (float(v) for v in tight.slice_at(0.6 * b.head))
    turn = float(np.arctan2(depth * np.sin(yaw), w * np.cos(yaw)))
    sweep = np.linspace(-np.pi / 2, np.pi / 2, 61)
    theta = sweep - turn
    edge = _hairline(sk, theta)
    if h.style in ("bob", "long", "curly", "twin tails", "braids") or (h.style == "ponytail" and c.feminine):
        # Longer hair covers ears and temples: its edge falls straight down beside the face.
        low = {"bob": 0.1, "curly": 0.2}.get(h.style, 0.25)
        away = np.degrees(np.abs(np.angle(np.exp(1j * theta))))
        edge = np.where(away > 66, np.minimum(edge, np.interp(away, [66, 76, 180], [0.6, low, low - 0.05])), edge)
    elif "sideburns" in c.trimmings:
        d = sk.design(69)
        away = np.degrees(np.abs(np.angle(np.exp(1j * theta))))
        front, back, long = d.uniform(58, 66), d.uniform(80, 88), d.uniform(0.08, 0.3)
        teeth = np.interp(away, np.linspace(front, back, 7), [0, *d.uniform(0.3, 1.0, 5), 0], left=0, right=0)
        edge = edge - long * teeth
    edge = edge - _fringe(sk, theta)
    left_low, right_low = float(edge[0]), float(edge[-1])
    bottom = tight.place(theta, edge * b.head, yaw)
    contour = _crown(sk, lathe, right_low, left_low, h.volume)
    if c.outfit.hat in ("", "band", "bow"):
        contour = _locks(sk, contour)
    outline = np.concatenate([contour, bottom])
    details = []
    d = sk.design(54)
    for _ in range(int(d.integers(0, 6))):
        at, long = d.uniform(-2.8, 2.8), d.uniform(0.05, 0.3)
        start = d.uniform(0.7, 0.95)
        if tight.facing(at, start * b.head, yaw) > 0.15:
            high = np.linspace(start, start - long, 4)
            details.append(lathe.place(at + d.uniform(-0.2, 0.2) * np.linspace(0, 1, 4), high * b.head, yaw))
    shapes = [sk.shape("hair", outline, (close(outline),), details, group="hair")]
    if "undercut" in c.trimmings and h.style in ("short", "spiky", "bun", "ponytail", "braid"):
        for s in (1, -1):
            away = np.linspace(62, 180, 15)
            bottom_edge = np.interp(away, np.degrees(np.abs(np.sort(s * theta))), edge[np.argsort(s * theta)])
            top_edge = np.maximum(0.62 + 0.06 * np.sin(np.radians(away)), bottom_edge + 0.02)
            around = s * np.radians(np.append(away, away[::-1]))
            shaved = tight.grown(0.002 * b.head).place(around, np.append(bottom_edge, top_edge[::-1]) * b.head, yaw)
            if np.ptp(shaved[:, 0]) > 0.03 * b.head:
                mixed = (np.array(c.color("hair")) * 0.55 + np.array(c.color("face")) * 0.45).astype(int)
                tone = (int(mixed[0]), int(mixed[1]), int(mixed[2]))
                shapes.append(sk.shape("hair", shaved, color=tone, group=f"cropped{s}"))
    return shapes


def _tail(sk: Sketch, root: NDArray[np.float64], length: float, width: float, way: float, key: int) -> list[Shape]:
    """A hanging tail of hair, its tip maybe dyed."""
    tips: list[Shape] = []
    d = sk.design(key)
    n = 7
    t = np.linspace(0, 1, n)
    sway = way * d.uniform(0.1, 0.45) * np.sin(t * np.pi * 0.7) + sk.character.hair.wave * 0.06 * np.sin(
        t * 9 + d.uniform(0, 6)
    )
    trail = (sk.rng.normal(0, 0.04) + 0.35 * sk.drag) * t**2
    path = root + np.stack([(sway + trail) * length, -t * length + 0.12 * length * np.sin(t * np.pi)], 1)
    profile = np.interp(t, [0, 0.15, 0.5, 0.85, 1], [0.35, 0.8, 1.0, 0.7, 0.05]) * width
    along = np.linspace(0, 1, 19)
    half = np.interp(along, t, profile)
    middle = spline(path, steps=3)
    if sk.character.hair.style in ("braid", "braids"):
        half = (
            np.interp(along, [0, 0.1, 0.85, 1], [0.5, 0.7, 0.55, 0.1])
            * width
            * (0.72 + 0.28 * np.abs(np.sin(along * 15)))
        )
        left, right = offsets(middle, half)
        knots = [np.stack([left[k], middle[k + 1], right[k]]) for k in range(2, 17, 2)]
        return [sk.shape("hair", np.concatenate([left, right[::-1]]), details=knots, group=f"tail{key}")]
    left, right = offsets(middle, half)
    if "tips" in sk.character.trimmings:
        cut = int(d.integers(9, 15))
        end = np.concatenate([left[cut:], right[cut:][::-1]])
        tips.append(sk.shape("hair", end, color="accent", group=f"tip{key}"))
    strands = [spline(path[1:6] + np.array([s * width * 0.4, 0]), steps=3) for s in (-1, 0.6)[: int(d.integers(0, 3))]]
    return [sk.shape("hair", np.concatenate([left, right[::-1]]), details=strands, group=f"tail{key}"), *tips]


def _loose(sk: Sketch) -> list[Shape]:
    """Long hair that falls down behind the head."""
    c, f = sk.character, sk.figure
    b, h = c.build, c.hair
    yaw = f.head_yaw
    if h.style == "bob":
        length = 0.08
    elif h.style in ("long",):
        length = h.length
    elif h.style == "curly":
        length = 0.12 if c.feminine else 0.0
    else:
        return []
    d = sk.design(55)
    lathe = f.skull.grown((h.volume + 0.02) * b.head)
    wide = float(np.hypot(lathe.width.max() * np.cos(yaw), lathe.depth.max() * 0.72 * np.sin(yaw)))
    shift = -np.sin(yaw) * b.head * 0.16
    low = -length * b.head
    flare = d.uniform(0.75, 1.35)
    wave = h.wave * 0.03 * b.head
    t = np.linspace(0, 1, 8)
    trail = shift + sk.drag * 0.3 * length * b.head * t**2
    ys = 0.62 * b.head + (low - 0.62 * b.head) * t
    half = wide * np.interp(t, [0, 0.12, 0.35, 1], [0.72, 0.94, 1.03, flare]) + wave * np.sin(t * 11)
    right = np.stack([trail + half, ys], 1)
    left = np.stack([trail - half, ys], 1)
    tips = int(d.integers(1, 7))
    bottom_x = np.linspace(half[-1], -half[-1], 2 * tips + 1)[1:-1] + trail[-1]
    depth = d.uniform(0.0, 0.12) * b.head
    bottom = np.stack([bottom_x, low + np.where(np.arange(2 * tips - 1) % 2 == 0, -depth, depth * 0.5)], 1)
    if h.style == "curly":
        outline = spline(np.concatenate([right, left[::-1]]), closed=True, steps=3)
        even, normal = _along(close(outline)[::-1], 41)
        even[1::2] += normal[1::2] * 0.05 * b.head
        outline = spline(even[:-1], closed=True, roundness=0.6, steps=3)
    else:
        outline = np.concatenate([spline(right, steps=3), bottom, spline(left, steps=3)[::-1]])
    strands = [
        spline(
            [(shift + x * wide, 0.3 * b.head), (shift + x * wide * 1.05, low * 0.4), (trail[-1] + x * half[-1], low)]
        )
        for x in (-0.5, 0.2, 0.7)
    ]
    # Its upper end goes over into the hair on the skull, without a line.
    stroke = outline if h.style != "curly" else close(outline)
    start = 2 if h.style != "curly" else 0
    stroke = stroke[start : len(stroke) - start or None]
    return [sk.shape("hair", outline, (stroke,), strands[: int(d.integers(0, 4))], group="hair")]


def _beast_ear(sk: Sketch, s: int) -> list[Shape]:
    """An ear of a bear, rabbit, dog or machine; s: 1 the left, -1 the right."""
    f, b, kind = sk.figure, sk.character.build, sk.character.face.ears
    d = sk.design(125)
    angle, high = {"bear": (0.85, 0.9), "rabbit": (0.5, 0.95), "dog": (1.15, 0.88), "machine": (1.57, 0.5)}[kind]
    spot = f.skull.place(np.array([s * angle]), np.array([high * b.head]), f.head_yaw)[0]
    out = s * np.cos(f.head_yaw)
    r = b.head * d.uniform(0.12, 0.22)
    if kind == "bear":
        outline, inner = ellipse(spot + [0, r * 0.4], r, r), ellipse(spot + [0, r * 0.4], r * 0.6, r * 0.6)
    elif kind == "rabbit":
        tilt, long = -out * d.uniform(0.1, 0.6), b.head * d.uniform(0.3, 0.8)
        center = spot + [-np.sin(tilt) * long * 0.8, np.cos(tilt) * long * 0.8]
        outline, inner = ellipse(center, r * 0.6, long, tilt), ellipse(center, r * 0.35, long * 0.8, tilt)
    elif kind == "dog":
        long = b.head * d.uniform(0.3, 0.6)
        outline = spline(
            [spot + [-out * r * 0.4, 0], spot + [out * r, 0], spot + [out * r * 1.6, -long * 0.6],
             spot + [out * r, -long], spot + [out * r * 0.2, -long * 0.5]], True, 0.4, 4
        )  # fmt: skip
        return [sk.shape("ear", outline, group=f"ear{s}")]
    else:
        outline, inner = ellipse(spot, r * 0.6, r * 0.8), ellipse(spot, r * 0.3, r * 0.4)
        shapes = [sk.shape("ear", outline, group=f"ear{s}", color="ornament")]
        if d.random() < 0.5:
            rod = spot + np.array([[-0.1, 0], [0.1, 0], [0.1, 2.5], [-0.1, 2.5]]) * r
            tip = ellipse(spot + [0, 2.5 * r], r * 0.25, r * 0.25, count=12)
            shapes = [
                sk.shape("ornament", rod, group=f"rod{s}"),
                sk.shape("ornament", tip, color="accent", group=f"tip{s}"),
                *shapes,
            ]
        return shapes
    shapes = [sk.shape("ear", outline, group=f"ear{s}")]
    if "inner ears" in sk.character.trimmings or d.random() < 0.5:
        shapes.append(sk.shape("ear", inner, color="accent", weight=0.7, group=f"hollow{s}"))
    return shapes


def _muzzle(sk: Sketch) -> list[Shape]:
    """The snout of an animal, with its nose."""
    f, b = sk.figure, sk.character.build
    yaw = f.head_yaw
    if sk.character.kind != "animal" or np.cos(yaw) < -0.3:
        return []
    d = sk.design(126)
    wide, high, out = d.uniform(0.14, 0.3) * b.head, d.uniform(0.1, 0.17) * b.head, d.uniform(0.02, 0.4) * b.head
    y = d.uniform(0.2, 0.3) * b.head
    center = f.skull.place(np.array([0.0]), np.array([y]), yaw)[0]
    reach = np.array([np.sin(yaw) * out, 0.0])
    across = wide * (0.55 + 0.45 * abs(np.cos(yaw)))
    circles = np.concatenate(
        [ellipse(center, across, high * 1.1, count=16), ellipse(center + reach, across * 0.8, high)]
    )
    hull = cv2.convexHull(circles.astype(np.float32))[:, 0].astype(float)
    kind = ("face", "eye_white", "accent", "neck")[int(d.integers(4))]
    tip = center + reach + [np.sin(yaw) * across * 0.6, high * d.uniform(0.3, 0.7)]
    r = wide * d.uniform(0.18, 0.4)
    nose_color = (30, 24, 26) if d.random() < 0.6 else sk.character.color("accent")
    lip = center + reach * 0.9 + np.array([[-across * 0.5, -high * 0.2], [0, -high * 0.5], [across * 0.5, -high * 0.2]])
    lines = [np.stack([tip, lip[1]]), spline(lip)]
    return [
        sk.shape("face", hull, details=lines, color=kind, group="muzzle"),
        sk.shape("mouth", ellipse(tip, r, r * 0.7, count=14), color=nose_color, group="nose", shaded=False),
    ]


def _ears(sk: Sketch) -> tuple[list[Shape], list[Shape]]:
    """Ears behind the face's outline, and those seen on the side of the head."""
    f, b, face = sk.figure, sk.character.build, sk.character.face
    behind: list[Shape] = []
    over: list[Shape] = []
    size = face.ear * b.head
    y = (b.eye_height - 0.06) * b.head
    for s in (1, -1):
        theta = s * (np.pi / 2 + 0.12)
        facing = f.skull.facing(theta, y, f.head_yaw)
        if face.ears in ("bear", "rabbit", "dog", "machine"):
            (behind if face.ears in ("bear", "rabbit") or facing < -0.2 else over).extend(_beast_ear(sk, s))
            continue
        if face.ears == "animal":
            high = 0.92 * b.head
            spot = f.skull.place(np.array([s * 0.95]), np.array([high]), f.head_yaw)[0]
            outline = spline(
                [
                    spot + [-size * 0.8, -size * 0.5],
                    spot + [s * size * 0.35, size * 1.9],
                    spot + [size * 0.8, -size * 0.5],
                ],
                roundness=0.25,
            )
            (behind if sk.front < 0 else over).append(
                sk.shape("ear", outline, color="ear" if sk.character.kind == "animal" else "hair", group=f"ear{s}")
            )
            continue
        if facing < -0.5:
            continue
        spot = f.skull.place(np.array([theta]), np.array([y]), f.head_yaw)[0]
        side_on = max(facing, 0.0)
        out = np.sign(spot[0] - float(f.skull.slice_at(y)[2] * np.sin(f.head_yaw))) or float(s)
        wide = size * (0.32 + 0.3 * side_on)
        center = spot + np.array([out * wide * (1 - side_on) * 0.75, 0.0])
        outline = ellipse(center, wide, size * 0.62, -0.15 * out)
        if face.ears == "pointed":
            outline = spline(
                [
                    center + [-wide, -size * 0.5],
                    center + [wide, -size * 0.5],
                    center + [out * wide * 2.2, size * 0.9],
                    center + [-out * wide, size * 0.5],
                ],
                closed=True,
                roundness=0.3,
            )
        inner = spline(
            [
                center + [out * wide * 0.2, size * 0.35],
                center + [-out * wide * 0.4, size * 0.1],
                center + [out * wide * 0.1, -size * 0.3],
            ]
        )
        layer = over if facing > 0.3 else behind
        layer.append(sk.shape("ear", outline, details=[inner], group=f"ear{s}"))
        if "inner ears" in sk.character.trimmings:
            darker = (1.0, 1.0, 1.0) if sk.design(87).random() < 0.5 else (0.85, 0.75, 0.75)
            hollow = np.asarray(center) + (outline - center) * 0.55
            r, g, blue = (int(v * k) for v, k in zip(sk.character.color("ear"), darker, strict=True))
            layer.append(sk.shape("ear", hollow, color=(r, g, blue), weight=0.6, group=f"hollow{s}", shaded=False))
    return behind, over


def _eyes(sk: Sketch) -> list[Shape]:
    c, f = sk.character, sk.figure
    b, face = c.build, c.face
    shapes = []
    d = sk.design(56)
    apart = d.uniform(0.4, 0.52)
    y = b.eye_height * b.head
    size = 0.068 * b.head * b.eye_size
    ratio = {"almond": 0.5, "oval": 1.15, "anime": 1.15, "goggle": 1.0, "square": 0.7}.get(face.eyes, 1.0) * d.uniform(
        0.85, 1.15
    )
    look = sk.expression.uniform(-0.3, 0.3)
    shut = sk.expression.random() < 0.07
    for s in (1, -1):
        facing = f.skull.facing(s * apart, y, f.head_yaw)
        if facing < 0.14:
            continue
        spot = f.skull.place(np.array([s * apart]), np.array([y]), f.head_yaw)[0]
        wide = size * min(1.0, facing * 1.15)
        high = size * ratio * (0.55 if face.eyes == "oval" else 0.62)
        if abs(np.sin(f.head_yaw)) > 0.85:
            spot = spot - [np.sign(np.sin(f.head_yaw)) * wide * 0.3, 0]
        if face.eyes == "dot":
            shapes.append(
                sk.shape(
                    "iris",
                    ellipse(spot, wide * 0.36, size * 0.5),
                    color=(24, 20, 22),
                    solid=True,
                    group=f"iris{s}",
                    shaded=False,
                )
            )
        elif face.eyes == "line" or shut:
            lid = spline(
                [spot - [wide, 0], spot + [0, high * (0.5 if face.eyes == "line" else -0.3)], spot + [wide, 0]], steps=4
            )
            thick = np.concatenate([lid, (lid - [0, size * 0.12])[::-1]])
            shapes.append(sk.shape("iris", thick, color=(24, 20, 22), solid=True, group=f"iris{s}", shaded=False))
        else:
            if face.eyes == "square":
                white = spot + np.array([[-wide, -high], [wide, -high], [wide, high], [-wide, high]])
            elif face.eyes == "almond":
                white = spline(
                    [
                        spot - [wide, 0],
                        spot + [-wide * 0.4, high * 0.9],
                        spot + [wide * 0.4, high * 0.95],
                        spot + [wide, 0],
                        spot + [wide * 0.4, -high * 0.75],
                        spot + [-wide * 0.4, -high * 0.75],
                    ],
                    closed=True,
                    steps=3,
                )
            else:
                white = ellipse(
                    spot,
                    wide * (0.8 if face.eyes == "oval" else 1.0),
                    high * (1.2 if face.eyes == "anime" else 1.0),
                    count=18,
                )
            big = {"anime": 0.8, "almond": 0.85, "goggle": 0.3, "square": 0.5}.get(face.eyes, 0.5)
            center = spot + np.array([look * wide * 0.6, 0.0])
            iris_w, iris_h = (
                wide * (0.62 if face.eyes == "anime" else 0.5),
                high * (1.2 if face.eyes == "anime" else 1.0) * big,
            )
            if face.eyes == "almond":
                iris_w = min(iris_w, high * 0.85)
                iris_h = high * 0.8
            weight = 0.6
            if "eye shadow" in c.trimmings:
                lid = spot + (white - spot) * [1.15, 1.7]
                lid = lid[lid[:, 1] > spot[1]]
                if len(lid) > 3:
                    lid = lid[np.argsort(lid[:, 0])]
                    shapes.append(sk.shape("face", lid, color="accent", weight=0.5, group=f"lid{s}", shaded=False))
            shapes.append(sk.shape("eye_white", white, weight=weight, group=f"eye{s}", shaded=False))
            shapes.append(
                sk.shape(
                    "iris", ellipse(center, iris_w, iris_h, count=16), weight=weight, group=f"iris{s}", shaded=False
                )
            )
            if size > 0.008:
                shapes.append(
                    sk.shape(
                        "iris",
                        ellipse(center, iris_w * 0.5, iris_h * 0.5, count=12),
                        (),
                        color=(18, 16, 20),
                        solid=True,
                        group=f"pupil{s}",
                        shaded=False,
                    )
                )
            if face.eyes == "anime" or "highlights" in c.trimmings:
                shine = ellipse(center + [iris_w * 0.35, iris_h * 0.4], iris_w * 0.28, iris_h * 0.25, count=10)
                shapes.append(sk.shape("eye_white", shine, (), group=f"shine{s}", shaded=False))
            if face.lashes or face.eyes == "anime":
                lid = white[(white[:, 1] > spot[1] + high * 0.25)]
                if len(lid) > 2:
                    lid = lid[np.argsort(lid[:, 0])]
                    thick = np.concatenate([lid, (lid + [0, size * 0.16])[::-1]])
                    shapes.append(
                        sk.shape(
                            "brow", thick, color=(24, 20, 22), solid=True, weight=0.5, group=f"lash{s}", shaded=False
                        )
                    )
        if face.brow:
            lift = (0.085 + 0.035 * b.eye_size) * b.head
            tilt = d.uniform(-0.25, 0.35) * s
            across = np.linspace(-1, 1, 5)
            arch = spot + np.stack(
                [across * wide * 1.15, lift + 0.012 * b.head * (1 - across**2) - tilt * across * 0.02 * b.head * 2], 1
            )
            arch = spline(arch, steps=3)
            thick = np.concatenate([arch, (arch - [0, face.brow * b.head])[::-1]])
            shapes.append(sk.shape("brow", thick, weight=0.6, group=f"brow{s}", shaded=False))
    return shapes


def _mouth(sk: Sketch) -> tuple[list[Shape], list[Points]]:
    """Shapes of the mouth, and lines of nose and mouth that lie on the face."""
    c, f = sk.character, sk.figure
    b, face = c.build, c.face
    yaw = f.head_yaw
    d = sk.design(57)
    lines: list[Points] = []
    shapes: list[Shape] = []
    s = float(np.sign(np.sin(yaw))) or 1.0
    side_on = abs(np.sin(yaw))
    lathe = f.skull

    def on_face(theta: ArrayLike, v: ArrayLike) -> Points:
        points = lathe.place(theta, np.asarray(v) * b.head, yaw)
        if side_on > 0.5:
            points[:, 0] += s * _smoothstep((side_on - 0.5) / 0.4) * _profile(sk, points[:, 1] / b.head) * 0.9
        return points

    if np.cos(yaw) < -0.3:
        return shapes, lines
    # Nose: from the front a tip, from three quarters a bridge; in profile the outline has it.
    if side_on < 0.9 and face.nose != "none":
        reach = 0.1 * b.nose
        tip = lathe.place(np.array([0.0]), np.array([0.33 * b.head]), yaw)[0] + [np.sin(yaw) * 0.1 * b.nose * b.head, 0]
        r = reach * b.head
        if face.nose == "dot":
            lines.append(tip + np.array([[-0.1, 0.0], [0.1, 0.0]]) * r)
        elif face.nose == "round":
            lines.append(spline([tip + [-r * 0.5, r * 0.1], tip + [0, -r * 0.35], tip + [r * 0.5, r * 0.1]]))
        elif face.nose == "hook" or side_on > 0.3:
            bridge = lathe.place(np.array([0.05]), np.array([(b.eye_height + 0.02) * b.head]), yaw)[0]
            lines.append(
                spline(
                    [
                        bridge + [s * 0.02 * b.head, 0],
                        tip + [s * r * 0.35, r * 0.4],
                        tip + [s * r * 0.3, -r * 0.1],
                        tip + [-s * r * 0.3, -r * 0.1],
                    ],
                    roundness=0.3,
                )
            )
        else:
            for k in (-1, 1):
                lines.append(
                    spline(
                        [tip + [k * r * 0.55, r * 0.3], tip + [k * r * 0.65, -r * 0.1], tip + [k * r * 0.25, -r * 0.15]]
                    )
                )
    wide = d.uniform(0.22, 0.42)
    v = d.uniform(0.16, 0.2)
    smile = sk.expression.uniform(-0.01, 0.03)
    theta = np.linspace(-wide, wide, 7)
    curve = v + smile * (theta / wide) ** 2
    kind = face.mouth
    if sk.expression.random() < 0.2:
        kind = ("open", "line", "smile")[int(sk.expression.integers(3))]
    if kind == "open":
        low = v - sk.expression.uniform(0.03, 0.07) * (1 - (theta / wide) ** 2)
        outline = on_face(np.concatenate([theta, theta[::-1]]), np.concatenate([curve, low[::-1]]))
        shapes.append(sk.shape("mouth", outline, color=(120, 50, 50), weight=0.7, group="mouth", shaded=False))
        if "teeth" in c.trimmings:
            upper = curve + (low - curve) * 0.4
            band = on_face(np.concatenate([theta[1:-1], theta[-2:0:-1]]), np.concatenate([curve[1:-1], upper[-2:0:-1]]))
            shapes.append(sk.shape("mouth", band, color="eye_white", weight=0.5, group="teeth", shaded=False))
    elif kind == "lips":
        up = curve + 0.016 * (1 - (theta / wide) ** 2)
        low = curve - 0.024 * (1 - (theta / wide) ** 2)
        outline = on_face(np.concatenate([theta, theta[::-1]]), np.concatenate([up, low[::-1]]))
        shapes.append(
            sk.shape("mouth", outline, details=[on_face(theta, curve)], weight=0.6, group="mouth", shaded=False)
        )
    else:
        lines.append(on_face(theta, curve + (0.02 * (theta / wide) ** 2 if kind == "smile" else 0)))
    if d.random() < 0.15 and c.build.head < 0.25:  # lines of age: forehead and under the eyes
        level = b.eye_height + 0.17
        for rise in (0.0, 0.035):
            lines.append(on_face(np.linspace(-0.35, 0.35, 5), np.full(5, level + rise)))
        for k in (-1, 1):
            lines.append(on_face(np.array([0.35, 0.5, 0.62]) * k, np.array([0.0, -0.015, 0.0]) + b.eye_height - 0.075))
    if d.random() < 0.25 and c.build.head < 0.25:
        for k in (-1, 1):
            lines.append(on_face(np.array([0.32, 0.42]) * k, np.array([0.3, 0.2])))
    return shapes, lines


def _beard(sk: Sketch) -> list[Shape]:
    c, f = sk.character, sk.figure
    b, face = c.build, c.face
    if not face.beard or np.cos(f.head_yaw) < -0.4:
        return []
    d = sk.design(58)
    lathe = f.skull.grown(0.012 * b.head)
    yaw = f.head_yaw
    if face.beard == "moustache":
        theta = np.linspace(-0.42, 0.42, 9)
        under = 0.2 - d.uniform(0, 0.05) * np.abs(theta) / 0.42
        up = 0.25 - 0.04 * np.abs(theta) / 0.42
        outline = lathe.place(np.concatenate([theta, theta[::-1]]), np.concatenate([up, under[::-1]]) * b.head, yaw)
        return [sk.shape("beard", outline, group="beard")]
    if face.beard == "goatee":
        wide, rise = d.uniform(0.45, 0.9), d.uniform(0.09, 0.14)
        theta = np.linspace(-wide, wide, 9)
        top = rise + 0.03 * (theta / wide) ** 2 * (1 if d.random() < 0.5 else 3)
        if d.random() < 0.5:
            top[4] += 0.03
        low = -0.015 - d.uniform(0, 0.08) * (1 - (theta / wide) ** 2)
    else:
        wide = 1.5
        theta = np.linspace(-wide, wide, 13)
        mouth = d.uniform(0.1, 0.13)
        top = np.interp(np.abs(theta), [0, 0.3, 0.5, 0.9, 1.5], [mouth, mouth, 0.26, 0.24, 0.45])
        low = np.interp(np.abs(theta), [0, 0.6, 1.0, 1.5], [-d.uniform(0.03, 0.25), -0.02, 0.05, 0.3])
        if d.random() < 0.5:
            low[::2] -= 0.02
    points_up = lathe.place(theta, top * b.head, yaw)
    points_low = lathe.place(theta, np.maximum(low, 0.001) * b.head, yaw) + np.stack(
        [np.zeros_like(low), np.minimum(low, 0) * b.head], 1
    )
    shapes = [sk.shape("beard", np.concatenate([points_up, points_low[::-1]]), group="beard")]
    if face.beard == "full":
        theta = np.linspace(-0.4, 0.4, 7)
        outline = lathe.place(
            np.concatenate([theta, theta[::-1]]), np.concatenate([np.full(7, 0.25), np.full(7, 0.21)]) * b.head, yaw
        )
        shapes.append(sk.shape("beard", outline, group="moustache"))
    return shapes


def _glasses(sk: Sketch) -> list[Shape]:
    c, f = sk.character, sk.figure
    b, kind = c.build, c.face.glasses
    if not kind:
        return []
    shapes = []
    y = (b.eye_height - 0.005) * b.head
    size = b.head * (0.085 + 0.02 * b.eye_size)
    frame = 0.012 * b.head
    lathe = f.skull.grown(0.02 * b.head)
    for s in (1, -1):
        facing = lathe.facing(s * 0.46, y, f.head_yaw)
        if facing < 0.1:
            continue
        spot = lathe.place(np.array([s * 0.46]), np.array([y]), f.head_yaw)[0]
        wide = size * min(1, facing * 1.1)
        if kind == "square":
            box = np.array([[-1, -0.7], [1, -0.7], [1, 0.7], [-1, 0.7]])
            outer, inner = spot + box * [wide + frame, size * 0.8 + frame], spot + box * [wide, size * 0.8]
            outer, inner = spline(outer, True, 0.1, 3), spline(inner, True, 0.1, 3)
        else:
            outer, inner = ellipse(spot, wide + frame, size * 0.85 + frame), ellipse(spot, wide, size * 0.85)
        if kind == "dark":
            shapes.append(sk.shape("glasses", outer, color=(40, 40, 52), group=f"lens{s}", shaded=False))
        else:
            ring = np.concatenate([close(outer), close(inner)[::-1]])
            shapes.append(
                sk.shape("glasses", ring, (close(outer), close(inner)), weight=0.6, group="frame", shaded=False)
            )
    arms = lathe.place(np.linspace(0.6, 1.6, 5) * (np.sign(np.sin(f.head_yaw)) * -1 or 1), np.full(5, y), f.head_yaw)
    if np.cos(f.head_yaw) < 0.9 and np.cos(f.head_yaw) > -0.2:
        strip = np.concatenate([arms + [0, frame], (arms - [0, frame])[::-1]])
        shapes.append(sk.shape("glasses", strip, weight=0.6, group="frame", shaded=False))
    bridge = lathe.place(np.linspace(-0.2, 0.2, 3), np.full(3, y), f.head_yaw)
    if np.cos(f.head_yaw) > 0.2:
        shapes.append(
            sk.shape(
                "glasses",
                np.concatenate([bridge + [0, frame * 0.7], (bridge - [0, frame * 0.7])[::-1]]),
                weight=0.6,
                group="frame",
                shaded=False,
            )
        )
    return shapes


def _hat(sk: Sketch) -> list[Shape]:
    c, f = sk.character, sk.figure
    b, kind = c.build, c.outfit.hat
    if not kind:
        return []
    d = sk.design(59)
    yaw = f.head_yaw
    grow = (c.hair.volume * 0.6 + 0.03) * b.head
    lathe = f.skull.grown(grow)
    rim = d.uniform(0.66, 0.74)
    dome = _crown(sk, lathe, rim, rim, c.hair.volume + d.uniform(0.02, 0.12))
    around = np.linspace(-np.pi / 2, np.pi / 2, 9)
    w = float(np.ptp(dome[:, 0])) / 2
    mid = float(dome[:, 0].max() + dome[:, 0].min()) / 2
    low = np.stack([mid + w * np.sin(around), rim * b.head - 0.1 * w * np.cos(around)], 1)
    dome_full = np.concatenate([dome, low[1:-1]])
    shapes = []
    if kind == "cap":
        shapes.append(sk.shape("hat", dome_full, group="hat"))
        ahead = np.sin(yaw)
        if np.cos(yaw) > -0.5:
            reach = 0.45 * b.head
            theta = np.linspace(-1.2, 1.2, 9)
            inner = lathe.place(theta, np.full(9, rim * b.head), yaw, 0.1)
            outer = (
                inner
                + np.stack([np.full(9, ahead * reach), -0.12 * b.head * np.cos(theta) * (0.5 + max(np.cos(yaw), 0))], 1)
                * np.cos(theta * 0.6)[:, None]
            )
            shapes.append(
                sk.shape(
                    "hat",
                    spline(np.concatenate([inner, outer[::-1]]), True, 0.2, 2),
                    group="brim",
                    color="hat" if d.random() < 0.6 else "accent",
                )
            )
    elif kind in ("beanie", "helmet"):
        shapes.append(sk.shape("armor" if kind == "helmet" else "hat", dome_full, group="hat"))
        band = np.concatenate([low, (low + [0, 0.1 * b.head])[::-1]])
        shapes.append(
            sk.shape(
                "armor" if kind == "helmet" else "hat",
                band,
                group="hat band",
                color="accent" if d.random() < 0.5 else None,
            )
        )
        if kind == "beanie" and d.random() < 0.5:
            top = dome[:, 1].max()
            shapes.append(
                sk.shape(
                    "hat",
                    ellipse((mid, top + 0.05 * b.head), 0.08 * b.head, 0.08 * b.head),
                    color="accent",
                    group="bobble",
                )
            )
    elif kind in ("brim", "top"):
        if kind == "top":
            high = d.uniform(0.35, 0.7) * b.head
            t = rim * b.head
            dome_full = np.array([[mid - w, t], [mid - w * 1.05, t + high], [mid + w * 1.05, t + high], [mid + w, t]])
            dome_full = np.concatenate([dome_full, low[::-1][1:-1]])
        shapes.append(sk.shape("hat", dome_full, group="hat"))
        band = np.concatenate([low + [0, 0.02 * b.head], (low + [0, 0.1 * b.head])[::-1]])
        shapes.append(sk.shape("ornament", band, group="hat band", color="accent"))
        wide = w * d.uniform(1.35, 1.9)
        brim = ellipse((mid, rim * b.head), wide, wide * d.uniform(0.12, 0.25), count=26)
        front = brim[brim[:, 1] <= rim * b.head + 1e-6]
        shapes.append(
            sk.shape(
                "hat",
                np.concatenate(
                    [front[np.argsort(front[:, 0])], np.stack([low[::-1][:, 0], low[::-1][:, 1] + 0.012 * b.head], 1)]
                ),
                group="brim",
            )
        )
    elif kind == "band":
        grown = f.skull.grown(c.hair.volume * 0.5 * b.head + 0.004)
        theta = np.linspace(-np.pi / 2, np.pi / 2, 11) - np.arctan2(np.sin(yaw), np.cos(yaw))
        up, down = (
            grown.place(theta, np.full(11, 0.74 * b.head), yaw, 0.05),
            grown.place(theta, np.full(11, 0.67 * b.head), yaw, 0.05),
        )
        shapes.append(sk.shape("hat", np.concatenate([up, down[::-1]]), group="hat"))
    elif kind == "bow":
        spot = f.skull.grown(grow).place(np.array([0.7]), np.array([0.93 * b.head]), yaw)[0]
        r = 0.17 * b.head
        for s in (-1, 1):
            wing = spline([spot, spot + [s * r, r * 0.7], spot + [s * r * 1.1, -r * 0.5]], True, 0.2, 4)
            shapes.append(sk.shape("ornament", wing, group="bow"))
        shapes.append(sk.shape("ornament", ellipse(spot, r * 0.25, r * 0.28, count=12), group="bow"))
    return shapes


def head(sk: Sketch) -> HeadShapes:
    """Everything from the neck up."""
    c, f = sk.character, sk.figure
    b, h = c.build, c.hair
    yaw = f.head_yaw
    facing = float(np.cos(yaw))
    behind: list[Shape] = []
    back: list[Shape] = []
    front: list[Shape] = []
    mouth, lines = _mouth(sk)
    outline = _face_outline(sk)
    ears_behind, ears_over = _ears(sk)
    covered = h.style in ("bob", "long", "twin tails", "braids", "curly") or (h.style == "ponytail" and c.feminine)
    tails: list[Shape] = []
    if h.style in ("ponytail", "braid"):
        spot = f.skull.place(np.array([np.pi]), np.array([0.72 * b.head]), yaw)[0]
        way = -np.sign(np.sin(yaw)) * abs(np.sin(yaw))
        tails += _tail(sk, spot, h.length * b.head * 0.8, 0.14 * b.head, way, 60)
    elif h.style in ("twin tails", "braids"):
        for s in (1, -1):
            spot = f.skull.place(np.array([s * 1.9]), np.array([0.66 * b.head]), yaw)[0]
            way = 1.0 if spot[0] > 0 else -1.0
            tail = _tail(sk, spot, h.length * b.head * 0.8, 0.15 * b.head, way, 61 if s > 0 else 62)
            (tails if facing < 0 or f.skull.facing(s * 1.9, 0.66 * b.head, yaw) > 0.2 else behind).extend(tail)
    elif h.style == "bun":
        spot = f.skull.place(np.array([np.pi]), np.array([0.86 * b.head]), yaw)[0] + [0, 0.08 * b.head]
        if facing > 0:
            spot = spot + [0, 0.1 * b.head]
        r = 0.16 * b.head
        tails.append(
            sk.shape("hair", ellipse(spot, r, r * 0.9), details=[ellipse(spot, r * 0.5, r * 0.4)[:14]], group="bun")
        )
    loose = _loose(sk)
    if facing > 0.3:
        behind += loose
        behind += tails if h.style in ("ponytail", "braid", "bun") else []
    elif facing > -0.3:
        back += loose
        back += tails if h.style in ("ponytail", "braid", "bun") else []
    front += ears_behind
    shadows: list[Points] = []
    if h.style != "bald" and sk.design(66).random() < 0.6:
        cap = _cap(sk)[0].fills[0]
        shadows.append(cap - np.array([0.0, sk.design(67).uniform(0.02, 0.05) * b.head]))
    front.append(sk.shape("face", outline, (_face_line(sk, outline),), lines, group="face", shadows=shadows))
    if sk.design(68).random() < 0.12 and facing > 0.2:
        skin = np.array(c.color("face"), float)
        rosy = tuple(int(v) for v in np.round(skin * (1.0, 0.86, 0.86)))
        for s in (1, -1):
            spot = f.skull.place(np.array([s * 0.62]), np.array([(b.eye_height - 0.17) * b.head]), yaw)[0]
            wide = 0.07 * b.head * max(f.skull.facing(s * 0.62, 0.3 * b.head, yaw), 0.05)
            front.append(
                sk.shape(
                    "face", ellipse(spot, wide, 0.04 * b.head), (), color=(rosy[0], rosy[1], rosy[2]), group=f"blush{s}"
                )
            )
    snout = _muzzle(sk)
    front += snout or mouth
    front += _beard(sk)
    front += _eyes(sk)
    if not covered:
        front += ears_over if h.style == "bald" else []
    front += _glasses(sk) if facing > -0.2 else []
    if h.style != "bald":
        front += _cap(sk)
    if not covered and h.style != "bald":
        front += ears_over
    if c.face.ears in ("animal", "dog", "machine") and covered:
        front += ears_over
    if facing <= -0.3:
        front += loose + (tails if h.style in ("ponytail", "braid", "bun") else [])
    if h.style in ("twin tails", "braids"):
        front += tails
    if h.style == "long" and facing > 0.2 and sk.design(63).random() < 0.5:
        for s in (1, -1):
            spot = f.skull.grown(0.02 * b.head).place(np.array([s * 1.25]), np.array([0.55 * b.head]), yaw)[0]
            if f.skull.facing(s * 1.25, 0.55 * b.head, yaw) > -0.1:
                long = min(h.length * 0.7 + 0.5, 1.6) * b.head
                front += _tail(sk, spot, long, 0.07 * b.head, 0.1 * s, 64 if s > 0 else 65)
    front += _hat(sk) + trimmings.on_head(sk)
    return HeadShapes(sk.on_head(behind), sk.on_head(back), sk.on_head(front))
