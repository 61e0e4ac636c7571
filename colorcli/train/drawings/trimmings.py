"""Small things on a character: jewelry, badges, bags, nails, patches, tails and wings."""

# ruff: noqa: RUF005 - here + moves points, it does not join lists.

from __future__ import annotations

import numpy as np

from colorcli.train.drawings.curves import Points, close, ellipse, limb, offsets, spline, unit
from colorcli.train.drawings.lathe import Lathe
from colorcli.train.drawings.pose import Limb
from colorcli.train.drawings.raster import Shape
from colorcli.train.drawings.sketch import Sketch


def _cloth(sk: Sketch) -> Lathe:
    return sk.figure.torso.grown(sk.character.outfit.loose + 0.012)


def on_chest(sk: Sketch) -> list[Shape]:
    """A necklace, a badge, and the strap and pouch of a shoulder bag; in the torso's leaned axes."""
    trim = sk.character.trimmings
    yaw = sk.figure.yaw
    lathe = _cloth(sk)
    shapes: list[Shape] = []
    d = sk.design(120)
    if "necklace" in trim and sk.front > -0.2:
        theta = np.linspace(-1.0, 1.0, 11)
        top, deep = sk.height(1.0), d.uniform(0.08, 0.3)
        chain = lathe.place(theta * 0.9, top - (sk.height(1.0) - sk.height(1.0 - deep)) * np.cos(theta * 1.4), yaw)
        left, right = offsets(chain, np.full(11, 0.003 * d.uniform(0.5, 2.0)))
        ribbon = np.concatenate([left, right[::-1]])
        shapes.append(sk.shape("ornament", ribbon, group="necklace", shaded=False, weight=0.6))
        r = 0.012 * d.uniform(0.6, 1.4)
        if lathe.facing(0.0, sk.height(1.0 - deep), yaw) > 0.1:
            shapes.append(sk.shape("ornament", ellipse(chain[5] - [0, r], r, r * 1.2, count=12), group="pendant"))
    if "badge" in trim:
        spot, y = float(d.choice([-1, 1]) * d.uniform(0.35, 0.6)), sk.height(d.uniform(0.68, 0.82))
        facing = lathe.facing(spot, y, yaw)
        if facing > 0.15:
            at = lathe.place(np.array([spot]), y, yaw)[0]
            r = 0.014 * d.uniform(0.7, 1.5)
            corners = int(d.choice([3, 4, 5, 20]))
            plate = ellipse(at, r * facing, r, d.uniform(0, 1), count=corners)
            shapes.append(sk.shape("ornament", plate, group="badge", color="accent" if d.random() < 0.5 else None))
    if sk.character.kind != "person" and sk.character.outfit.upper in ("bare", "tank") and sk.front > -0.2:
        shapes += _belly(sk)
    if sk.character.outfit.upper in ("suit", "coat", "open jacket", "uniform") and sk.front > -0.3:
        shapes += _jacket_trim(sk)
    if "shoulder bag" in trim:
        way = float(d.choice([-1, 1]))
        t = np.linspace(0, 1, 9)
        theta = way * np.interp(t, [0, 0.5, 1], [-0.9, 0.1, 1.35])
        heights = sk.height(1.0) + (sk.height(0.02) - sk.height(1.0)) * t
        wide = 0.011 * d.uniform(0.6, 1.5)
        if sk.front < 0:
            theta = np.pi - theta
        strap = lathe.place(theta, heights, yaw)
        if np.ptp(strap[:, 0]) > 0.03:
            left, right = offsets(strap, np.full(len(t), wide))
            shapes.append(sk.shape("belt", np.concatenate([left, right[::-1]]), (left, right), group="strap"))
        if lathe.facing(way * 1.35, float(heights[-1]), yaw) > -0.35:
            r = 0.07 * d.uniform(0.7, 1.3)
            at = strap[-1]
            box = spline(at + np.array([[-r, -r * 1.5], [r, -r * 1.5], [r, 0.2 * r], [-r, 0.2 * r]]), True, 0.12, 3)
            flap = np.array([[-r, 0.2 * r], [r, 0.2 * r], [r * 0.9, -0.5 * r], [-r * 0.9, -0.5 * r]]) + at
            shapes.append(sk.shape("prop", box, group="bag"))
            shapes.append(sk.shape("prop", flap, group="flap", color="accent" if d.random() < 0.4 else None))
    return sk.on_torso(shapes)


def _jacket_trim(sk: Sketch) -> list[Shape]:
    """Flaps over the pockets, and a cloth in the breast pocket."""
    trim = sk.character.trimmings
    lathe, yaw = _cloth(sk), sk.figure.yaw
    d = sk.design(129)
    shapes: list[Shape] = []
    inner, outer, high = d.uniform(0.3, 0.5), d.uniform(0.75, 1.1), d.uniform(0.05, 0.1)
    level, slant = d.uniform(0.1, 0.28), d.uniform(-0.02, 0.06)
    color = "accent" if d.random() < 0.2 else "jacket"
    if "pocket flaps" in trim:
        for s in (1, -1):
            if lathe.facing(s * (inner + outer) / 2, sk.height(level), yaw) < 0.1:
                continue
            theta = s * np.array([inner, outer, outer, inner])
            corners = np.array([sk.height(level + k) for k in (0, slant, slant - high, -high)])
            flap = lathe.place(theta, corners, yaw, 0.05)
            shapes.append(sk.shape("jacket", flap, color=color, group=f"flap{s}"))
    if "pocket square" in trim and lathe.facing(0.6, sk.height(0.72), yaw) > 0.1:
        theta, y = np.array([0.4, 0.75, 0.7, 0.6, 0.45]), sk.height(0.7)
        rise = (sk.height(0.76) - y) * d.uniform(0.5, 1.0)
        cloth = lathe.place(theta, y + rise * np.array([0, 0, 1.0, 0.5, 1.1]), yaw)
        shapes.append(sk.shape("ornament", cloth, color="shirt", group="pocket square", weight=0.8))
    if "piping" in trim:
        heights = np.linspace(sk.height(0.85), sk.height(0.1), 7)
        edge = d.uniform(0.02, 0.12)
        near = lathe.place(np.full(7, edge), heights, yaw, 0.1)
        far = lathe.place(np.full(7, edge + d.uniform(0.05, 0.12)), heights, yaw, 0.1)
        if np.abs(far - near).max() > 0.003:
            shapes.append(sk.shape("jacket", np.concatenate([near, far[::-1]]), color="accent", group="piping"))
    return shapes


def _belly(sk: Sketch) -> list[Shape]:
    """The lighter belly of an animal, or the panel on a machine's chest."""
    d = sk.design(127)
    lathe, yaw = sk.figure.torso.grown(0.002), sk.figure.yaw
    if sk.character.kind == "animal":
        if d.random() < 0.4:
            return []
        t = np.linspace(0, 2 * np.pi, 18, endpoint=False)
        heights = sk.height(0.42) + (sk.height(0.75) - sk.height(0.42)) * np.sin(t)
        outline = lathe.place(d.uniform(0.5, 0.9) * np.cos(t), heights, yaw)
        return [sk.shape("torso_skin", outline, color=("accent", "eye_white")[int(d.integers(2))], group="belly")]
    wide, top, low = d.uniform(0.3, 0.8), sk.height(d.uniform(0.75, 0.9)), sk.height(d.uniform(0.45, 0.65))
    panel = lathe.place(np.array([-wide, 0, wide, wide, 0, -wide]), np.array([top, top, top, low, low, low]), yaw)
    shapes = [sk.shape("armor", panel, color="accent" if d.random() < 0.5 else "armor", group="panel")]
    for k, theta in enumerate(np.linspace(-wide * 0.6, wide * 0.6, int(d.integers(1, 5)))):
        y = (top + low) / 2
        if lathe.facing(float(theta), y, yaw) > 0.2:
            spot = lathe.place(np.array([theta]), y, yaw)[0]
            r = 0.25 * (top - low) * d.uniform(0.4, 0.9)
            color = ("ornament", "prop", "tie")[int(d.integers(3))]
            shapes.append(sk.shape("ornament", ellipse(spot, r * 0.7, r, count=14), color=color, group=f"lamp{k}"))
    return shapes


def behind_body(sk: Sketch) -> list[Shape]:
    """Wings, a back pack and a tail: behind the body from the front, over it from the back."""
    trim = sk.character.trimmings
    b = sk.character.build
    yaw = sk.figure.yaw
    shapes: list[Shape] = []
    d = sk.design(121)
    back = -sk.turn * b.shoulder * 0.55
    if "wings" in trim:
        size, spread = d.uniform(0.25, 0.5), d.uniform(0.35, 1.0)
        feathers = int(d.integers(2, 6))
        fold = d.uniform(-0.2, 0.9)
        y = sk.height(0.82)
        for s in (1, -1):
            out = s * sk.front - 1.1 * sk.turn
            root = np.array([back + s * sk.front * b.shoulder * 0.2, y])
            tip = root + np.array([out * spread, fold]) * size
            low = np.linspace(0, 1, 2 * feathers + 1)[1:]
            under = tip + (root + [out * 0.1 * size, -0.35 * size] - tip) * low[:, None]
            under[::2, 1] -= 0.18 * size
            outline = np.concatenate([[root], [(root + tip) / 2 + [0, 0.12 * size]], [tip], under])
            lines = [np.stack([under[k], (under[k] + root) / 2]) for k in range(1, len(under) - 1, 2)]
            shapes.append(sk.shape("ornament", spline(outline, True, 0.15, 3), details=lines, group=f"wing{s}"))
    if "back pack" in trim and (abs(sk.turn) > 0.4 or sk.front < 0):
        wide = b.shoulder * (0.75 * abs(sk.front) + 0.4 * abs(sk.turn)) * d.uniform(0.8, 1.2)
        deep = float(_cloth(sk).slice_at(sk.height(0.7))[1])
        middle = np.array([-sk.turn * (deep + wide * 0.7), sk.height(0.62)])
        high = (sk.height(0.95) - sk.height(0.3)) * d.uniform(0.4, 0.6)
        box = np.array([[-1, -1], [1, -1], [1, 0.8], [0.7, 1], [-0.7, 1], [-1, 0.8]]) * [wide, high] + middle
        pocket = np.array([[-0.7, -0.8], [0.7, -0.8], [0.7, -0.1], [-0.7, -0.1]]) * [wide, high] + middle
        shapes.append(sk.shape("prop", spline(box, True, 0.15, 3), group="pack"))
        shapes.append(sk.shape("prop", pocket, group="pocket", color="accent" if d.random() < 0.5 else None))
    if "tail" in trim:
        length, lift, wide = d.uniform(0.25, 0.6), d.uniform(-0.2, 0.9), d.uniform(0.01, 0.035)
        curl = d.uniform(-2.5, 2.5)
        way = -np.sign(np.sin(yaw)) * max(abs(sk.turn), 0.35)
        t = np.linspace(0, 1, 8)
        x = way * (0.2 + length * np.sin(t * 1.6)) - way * 0.2 + 0.08 * length * np.sin(curl * t)
        rise = length * (lift * t + 0.35 * np.sin(curl * t * 1.5) * t)
        path = np.array([back * 0.6, sk.height(0.08)]) + np.stack([x + 0.15 * sk.drag * t**2, rise], 1)
        half = np.interp(t, [0, 0.7, 1], [wide, wide * d.uniform(0.6, 1.6), wide * d.uniform(0.1, 1.5)])
        left, right = offsets(spline(path, steps=2), np.interp(np.linspace(0, 1, 15), t, half))
        skin = d.random() < 0.5
        outline = np.concatenate([left, right[::-1]])
        shapes.append(sk.shape("ornament", outline, color="torso_skin" if skin else "hair", group="tail"))
        if d.random() < 0.4:
            tuft = np.concatenate([left[-5:], right[-5:][::-1]])
            shapes.append(sk.shape("ornament", tuft, color="accent", group="tuft"))
    return sk.on_torso(shapes)


def on_arm(sk: Sketch, bones: Limb, wide: float) -> list[Shape]:
    """A watch or bracelet at the wrist."""
    if "watch" not in sk.character.trimmings:
        return []
    d = sk.design(122)
    if bones.side != d.choice([-1, 1]):
        return []
    _, elbow, wrist = bones.points
    if float(np.hypot(*(wrist - elbow))) < 0.03:
        return []
    band = tuple(elbow + (wrist - elbow) * t for t in (0.86, 0.91, 0.96))
    left, right = limb(band, (wide,) * 5)
    outline = np.concatenate([left, right[::-1]])
    shapes = [sk.shape("ornament", outline, color="belt", group="watch", weight=0.8)]
    if d.random() < 0.6:
        shapes.append(sk.shape("ornament", ellipse(band[1], wide * 0.55, wide * 0.55, count=12), group="dial"))
    return shapes


def on_sleeve(sk: Sketch, bones: Limb, wide: float) -> list[Shape]:
    """A band around the upper arm, and a patch on the elbow."""
    trim = sk.character.trimmings
    d = sk.design(128)
    shoulder, elbow, wrist = bones.points
    long = float(np.hypot(*(elbow - shoulder)))
    both, start, high = d.random() < 0.4, d.uniform(0.35, 0.55), d.uniform(0.1, 0.25)
    shapes: list[Shape] = []
    if "arm bands" in trim and (both or bones.side == 1) and long > 0.04:
        band = tuple(shoulder + (elbow - shoulder) * t for t in (start, start + high / 2, start + high))
        left, right = limb(band, (wide,) * 5)
        outline = np.concatenate([left, right[::-1]])
        color = "accent" if d.random() < 0.6 else "ornament"
        shapes.append(sk.shape("ornament", outline, color=color, group=f"band{bones.side}"))
    if "elbow patches" in trim:
        bend = unit(elbow - (shoulder + wrist) / 2) * wide * 0.3
        patch = ellipse(elbow + bend, wide * 0.5, wide * 0.75, 0.0, count=14)
        shapes.append(sk.shape("jacket", patch, color="accent", group=f"elbow{bones.side}", weight=0.8))
    return shapes


def on_leg(sk: Sketch, bones: Limb, wide: float) -> list[Shape]:
    """A patch on the knee of trousers."""
    if "knee patches" not in sk.character.trimmings or sk.front < -0.3:
        return []
    d = sk.design(123)
    if bones.side == -1 and d.random() < 0.4:
        return []
    knee = bones.points[1] + [sk.turn * wide * 0.3, 0]
    r = wide * d.uniform(0.45, 0.75)
    patch = ellipse(knee, r, r * d.uniform(0.8, 1.3), d.uniform(0, 1), count=int(d.choice([4, 5, 18])))
    return [sk.shape("trousers", patch, color="accent", group=f"patch{bones.side}")]


def on_head(sk: Sketch) -> list[Shape]:
    """Earrings and a hair clip, in the skull's axes."""
    c, f = sk.character, sk.figure
    b = c.build
    shapes: list[Shape] = []
    d = sk.design(124)
    if "earrings" in c.trimmings:
        y = (b.eye_height - 0.06 - c.face.ear * 0.75) * b.head
        r = b.head * d.uniform(0.018, 0.035)
        for s in (1, -1):
            if f.skull.facing(s * 1.5, y, f.head_yaw) > -0.15:
                spot = f.skull.place(np.array([s * 1.5]), y, f.head_yaw)[0]
                shapes.append(sk.shape("ornament", ellipse(spot - [0, r], r, r * 1.2, count=12), group=f"ring{s}"))
    if "hair clip" in c.trimmings and c.hair.style != "bald" and c.outfit.hat in ("", "band"):
        high = d.uniform(0.68, 0.85) * b.head
        lathe = f.skull.grown(c.hair.volume * 0.5 * b.head)
        angle = float(d.choice([-1, 1])) * d.uniform(0.6, 1.2)
        if lathe.facing(angle, high, f.head_yaw) > 0.1:
            spot = lathe.place(np.array([angle]), high, f.head_yaw)[0]
            r = b.head * d.uniform(0.03, 0.06)
            clip = ellipse(spot, r, r * d.uniform(0.35, 1.0), d.uniform(0, 3), count=int(d.choice([4, 6, 16])))
            shapes.append(sk.shape("ornament", clip, group="clip", color="accent" if d.random() < 0.5 else None))
    return shapes


def nail(tip: Points, way: Points, radius: float) -> Points:
    """The outline of a fingernail at a finger's tip."""
    return close(ellipse(np.asarray(tip) + unit(way) * radius * 0.3, radius * 0.6, radius * 0.6, count=8))[:-1]
