"""Bare and clothed limbs: arms with hands, legs with feet."""

# ruff: noqa: RUF005 - here + moves points, it does not join lists.

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.train.drawings.curves import Points, capsule, ellipse, limb, offsets, rotated, spline, unit
from colorcli.train.drawings.pose import Limb
from colorcli.train.drawings.raster import RGB, Shape
from colorcli.train.drawings.sketch import Sketch
from colorcli.train.drawings.trimmings import nail, on_arm, on_leg, on_sleeve

Vec = NDArray[np.float64]


def _cut(joints: tuple[Vec, Vec, Vec], start: float, stop: float) -> tuple[Vec, Vec, Vec]:
    """A stretch of a two-boned limb: from `start` to `stop`, 0 its root, 0.5 its middle joint, 1 its end."""

    def at(t: float) -> Vec:
        a, b, c = joints
        return a + (b - a) * 2 * t if t < 0.5 else b + (c - b) * (2 * t - 1)

    middle = 0.5 if start < 0.5 < stop else (start + stop) / 2
    return at(start), at(middle), at(stop)


def _strayed(sk: Sketch, side: Points) -> Points:
    """A side of a limb as an unsteady hand draws it; its ends stay where they are."""
    wobble = sk.character.wobble
    if wobble < 0.001 or len(side) < 6:
        return side
    noise = sk.rng.normal(0, wobble, side.shape)
    noise = (noise + np.roll(noise, 1, 0)) / 2
    noise[[0, 1, -2, -1]] = 0
    return side + noise


def _tube(
    sk: Sketch,
    part: str,
    color: str | RGB,
    joints: tuple[Vec, Vec, Vec],
    widths: tuple[float, float, float, float, float],
    group: str,
    rooted: bool,
    hem: bool,
    outer: float,
    folds: int = 0,
) -> list[Shape]:
    """A limb or sleeve. rooted: its first end goes over into the body, without a line. hem: a line at its last end.

    outer: which way (x) is away from the body; 0 where the limb lies before the body and its root shows all round.
    """
    a, b, c = joints
    first, second = unit(b - a), unit(c - b)
    straight = float(first @ second)
    pieces = [(joints, widths)]
    cut_out = sk.character.cut_out and float(np.hypot(*(b - a))) > 0.02
    if straight < -0.1 or cut_out:
        middle = widths[2]
        pieces = [
            ((a, (a + b) / 2, b), (widths[0], widths[1], widths[1], widths[1], middle)),
            ((b, (b + c) / 2, c), (middle, widths[3], widths[3], widths[3], widths[4])),
        ]
    shapes = []
    for k, (path, wide) in enumerate(pieces):
        left, right = (_strayed(sk, side) for side in limb(path, wide))
        last = k == len(pieces) - 1
        fills = [np.concatenate([left, right[::-1]])]
        start = unit(path[1] - path[0])
        strokes: list[Points] = []
        seams: list[Points] = []
        if k > 0 or not last:
            fills.append(ellipse(b, widths[2], widths[2], count=14))
        if k == 0 and rooted:
            fills.append(ellipse(path[0], wide[0], wide[0], count=16))
            up = np.arctan2(-start[1], -start[0])
            for side, sign in ((left, -1), (right, 1)):
                away = (side[0] - path[0])[0] * outer > 0 or outer == 0 or cut_out
                trim = side[1:] if away else side[2:]
                if away:
                    sweep = np.linspace(up + sign * 0.35, up + sign * np.pi / 2, 5)
                    arc = path[0] + wide[0] * np.stack([np.cos(sweep), np.sin(sweep)], 1)
                    trim = np.concatenate([arc, side[1:]])
                strokes.append(trim)
        elif k == 0:
            strokes = [left, right]
        else:
            # The bent elbow or knee: a line around the joint, open towards the upper bone.
            down = np.arctan2(start[1], start[0])
            sweep = np.linspace(down + np.pi / 2, down + 1.5 * np.pi, 9)
            arc = path[0] + wide[0] * np.stack([np.cos(sweep), np.sin(sweep)], 1)
            keep = arc[:6] if sk.rng.random() < 0.5 else arc[3:]
            keep = arc if cut_out else keep
            strokes = [left, right, keep]
        if hem and last:
            bow = second * wide[4] * 0.18
            end = spline([left[-1], (left[-1] + right[-1]) / 2 + bow, right[-1]])
            if sk.design(89).random() < 0.15:  # a crumpled hem
                share = np.linspace(0, 1, 7)[:, None]
                crumple = sk.design(90).uniform(-0.15, 0.6, 7)[:, None] * second * wide[4] * 0.5
                end = left[-1] + (right[-1] - left[-1]) * share + crumple * (share > 0) * (share < 1)
            strokes.append(end)
            if "hem seams" in sk.character.trimmings:
                seams.append(end - second * sk.design(86).uniform(0.008, 0.025))
            fills.append(end)
        details = seams
        for _ in range(folds if last else 0):
            t = sk.rng.uniform(0.25, 0.75)
            n = int(t * (min(len(left), len(right)) - 1))
            p, q = (left[n], right[n]) if sk.rng.random() < 0.5 else (right[n], left[n])
            tip = p + (q - p) * sk.rng.uniform(0.3, 0.7) + second * wide[2] * sk.rng.uniform(-0.6, 0.6)
            details.append(spline([p, (p + tip) / 2 + second * wide[2] * sk.rng.uniform(-0.3, 0.3), tip]))
        shapes.append(sk.shape(part, fills, strokes, details, color=color, group=group))
    if len(shapes) == 2 and not cut_out and sk.rng.random() < 0.15:
        shapes.reverse()
    return shapes


def hand(sk: Sketch, wrist: Vec, ahead: Vec, thumb: float, kind: str, part: str, group: str) -> list[Shape]:
    """A hand beyond the wrist. ahead: (2,) its direction as seen; thumb: 1 if the thumb is left of it, else -1."""
    b = sk.character.build
    size = 0.125 * (1 - b.head) * b.hand
    direction = unit(ahead)
    short = float(np.clip(np.hypot(*ahead), 0.55, 1.0))
    left = np.array([-direction[1], direction[0]]) * thumb
    root = wrist - direction * size * 0.06

    def spot(along: float, across: float) -> Vec:
        return root + direction * (along * size * short) + left * (across * size)

    wide = 0.24 if sk.character.build.hand < 1.25 else 0.28
    shapes = []
    chunky = sk.design(1).uniform(0.85, 1.3)
    radius = 0.062 * size * chunky
    count = 4 if sk.design(2).random() < 0.8 else 3
    nails = part == "hand" and "nails" in sk.character.trimmings and float(np.sin(thumb + 3 * len(kind))) > -0.5
    spread = {"open": 0.62, "relaxed": 0.14, "point": 0.1, "fist": 0.0}[kind]
    if kind in ("open", "relaxed"):
        lengths = (0.42, 0.5, 0.46, 0.36)
        for k in range(count)[::-1]:
            u = (k / (count - 1) - 0.5) * 2
            base = spot(0.46, -wide * 0.8 * u)
            angle = (
                -thumb * (u * spread / 2 + sk.rng.normal(0, 0.05)) - (thumb * 0.25 if kind == "relaxed" else 0) * k / 4
            )
            way = rotated(direction[None], angle)[0]
            tip = base + way * lengths[k] * size * short * (0.85 if kind == "relaxed" else 1)
            outline = capsule(base, tip, radius * 1.15, radius)
            shapes.append(sk.shape(part, outline, (outline,), group=group))
            if nails:
                shapes.append(
                    sk.shape(part, nail(tip, way, radius), color="accent", weight=0.5, group=f"nail{k}{group}")
                )
    elif kind == "point":
        base = spot(0.42, wide * 0.6)
        outline = capsule(base, base + direction * 0.5 * size * short, radius * 1.15, radius)
        shapes.append(sk.shape(part, outline, (outline,), group=group))
    depth = 0.5 if kind in ("open", "relaxed") else 0.56
    palm = spline(
        [
            spot(0, wide * 0.6),
            spot(0.25, wide * 0.95),
            spot(depth, wide),
            spot(depth + (0.02 if kind in ("open", "relaxed") else 0.08), 0),
            spot(depth, -wide),
            spot(0.25, -wide * 0.9),
            spot(0, -wide * 0.6),
        ],
        steps=4,
    )
    edge = len(palm)
    strokes = [palm[: edge * 2 // 6], palm[edge * 4 // 6 :]]
    details = []
    if kind in ("fist", "point"):
        strokes = [palm]
        for u in (-0.45, 0.05, 0.5):
            details.append(np.stack([spot(0.36, wide * u), spot(depth + 0.04, wide * u * 1.05)]))
    shapes.append(sk.shape(part, palm, strokes, details, group=group))
    if kind in ("open", "relaxed"):
        angle = thumb * (0.75 if kind == "open" else 0.3)
        base, length = spot(0.16, wide * 0.62), 0.36
    else:
        angle = -thumb * 0.7
        base, length = spot(0.3, wide * 0.75), 0.3
    way = rotated(direction[None], angle)[0]
    outline = capsule(base, base + way * length * size, radius * 1.35, radius * 1.05)
    shapes.append(sk.shape(part, outline, (outline,), group=group))
    return shapes


def arm(sk: Sketch, which: int, sleeve: tuple[str, str | RGB] | None) -> list[Shape]:
    """One arm with its sleeve (part and color) and its hand."""
    c, b = sk.character, sk.character.build
    bones: Limb = sk.figure.arms[which]
    side = bones.side
    group = f"arm{side}"
    joints = bones.points
    o = c.outfit
    w = b.arm
    bare = (w, w * 0.95, w * 0.82, w * 0.85, w * 0.62)
    outer = side * sk.front
    if abs(sk.front) < 0.35:
        outer = 0.0
    direction = unit(bones.end)
    perpendicular = np.array([-direction[1], direction[0]])
    inward = np.array([-side * sk.front * 0.8 + sk.turn, 0.25])
    thumb = 1.0 if float(perpendicular @ inward) > 0 else -1.0
    covered = o.gloves
    shapes = hand(
        sk, joints[2], bones.end, thumb, sk.figure.pose.hands[which], "glove" if covered else "hand", f"hand{side}"
    )
    reach = o.sleeve if sleeve is not None else 0.0
    if reach < 0.97:
        shapes += _tube(sk, "arm", "arm", joints, bare, group, True, False, outer)
    if covered:
        shapes += _tube(
            sk,
            "glove",
            "glove",
            _cut(joints, 0.8, 1.0),
            (w * 0.95, w * 0.9, w * 0.85, w * 0.8, w * 0.75),
            f"hand{side}",
            False,
            False,
            outer,
        )
    if sleeve is not None and reach > 0.05:
        part, color = sleeve
        slack = o.loose + (0.006 if part == "jacket" else 0.0)
        grown = np.array(bare) * 1.1 + slack
        end = min(reach, 0.985)
        stretch = _cut(joints, 0.0, end)
        places = np.array([0, 0.25, 0.5, 0.75, 1.0]) * end
        w0, w1, w2, w3, w4 = np.interp(places, [0, 0.25, 0.5, 0.75, 1], grown)
        flare = o.flare * 0.3 * w if sk.design(3).random() < 0.4 else 0.0
        if o.upper == "robe":
            flare = w * (0.6 + 1.6 * o.flare)
            w3 += flare * 0.5
        shapes += _tube(
            sk,
            part,
            color,
            stretch,
            (w0, w1, w2, w3, w4 + flare + slack * 0.5),
            f"sleeve{side}",
            True,
            True,
            outer,
            o.folds // 2,
        )
        if sk.design(4).random() < 0.3 and reach > 0.5:
            cuff = _cut(joints, end - 0.1, end)
            wide = w4 + flare + slack * 0.6
            accent = sk.design(5).random() < 0.4
            cuff_color = "accent" if accent else ("shirt" if part == "jacket" else color)
            shapes += _tube(
                sk,
                "shirt" if part == "jacket" and not accent else part,
                cuff_color,
                cuff,
                (wide,) * 5,
                f"cuff{side}",
                False,
                True,
                outer,
            )
            left, right = limb(cuff, (wide,) * 5)
            shapes[-1] = sk.shape(
                part if accent or part != "jacket" else "shirt",
                shapes[-1].fills,
                (*shapes[-1].strokes, np.stack([left[0], right[0]])),
                color=cuff_color,
                group=f"cuff{side}",
            )
    if sleeve is not None and reach > 0.4:
        shapes += on_sleeve(sk, bones, float(w * 1.1 + o.loose + 0.006))
    if not covered:
        at_wrist = reach >= 0.9 and sleeve is not None
        shapes += on_arm(sk, bones, w * (0.85 + 0.25 * at_wrist) + (o.loose + 0.004) * at_wrist)
    return shapes


def _below(outline: Points, level: float) -> Points:
    """What of a closed convex outline lies under a level."""
    kept = []
    for here, ahead in zip(outline, np.roll(outline, -1, 0), strict=True):
        if here[1] <= level:
            kept.append(here)
        if (here[1] - level) * (ahead[1] - level) < 0:
            kept.append(here + (ahead - here) * (level - here[1]) / (ahead[1] - here[1]))
    return np.array(kept).reshape(-1, 2)


def foot(sk: Sketch, bones: Limb) -> list[Shape]:
    """A bare foot or a shoe under the ankle."""
    c, b = sk.character, sk.character.build
    o = c.outfit
    side = bones.side
    length = 0.135 * (1 - b.head) * b.foot
    high = b.legs * 0.09
    out = 0.35
    ahead = np.array([side * out * sk.front + sk.turn, -(sk.front - side * out * sk.turn)])  # right, away from us
    ankle = bones.points[2]
    shin = bones.points[2] - bones.points[1]
    wide = b.leg * 0.62 + (0.006 if o.shoes != "barefoot" else 0)
    drop = -high
    toe = np.array([ahead[0] * length * 0.68, drop + wide * 0.62 + ahead[1] * length * 0.22])
    heel = np.array([-ahead[0] * length * 0.22, drop + wide * 0.8 - ahead[1] * length * 0.02])
    ball = np.array([ahead[0] * length * 0.42, drop + wide * 0.75 + ahead[1] * length * 0.15])
    circles = [
        ellipse((0, 0), wide * 0.9, wide * 0.6, count=12),
        ellipse(heel, wide * 0.85, wide * 0.85, count=12),
        ellipse(ball, wide * 0.95, wide * 0.75, count=12),
        ellipse(toe, wide * (0.75 if o.shoes != "heels" else 0.5), wide * 0.6, count=12),
    ]
    cloud = np.concatenate(circles).astype(np.float32)
    hull = cv2.convexHull(cloud)[:, 0].astype(float)
    floor = drop + min(0.0, ahead[1]) * length * 0.2
    hull[:, 1] = np.maximum(hull[:, 1], floor)
    tilt = np.arctan2(shin[0], -shin[1]) * 0.75
    if abs(sk.turn) < 0.3:
        tilt *= 0.3

    def place(points: Points) -> Points:
        return rotated(points, tilt) + ankle

    part = "leg" if o.shoes == "barefoot" else "shoe"
    details = []
    if o.shoes in ("sneakers", "boots") or sk.design(6).random() < 0.3:
        level = floor + high * 0.28
        details.append(place(np.stack([[hull[:, 0].min(), level], [hull[:, 0].max(), level]])))
    if o.shoes == "sneakers":
        for t in (0.3, 0.5):
            spot = np.array([ahead[0] * length * t, drop + wide * 1.2])
            details.append(place(np.stack([spot + [-wide * 0.5, -wide * 0.1], spot + [wide * 0.5, wide * 0.2]])))
    if part == "leg":
        for t in (-0.5, 0.0, 0.5):
            spot = toe + [wide * t, -wide * 0.3]
            details.append(place(np.stack([spot, spot + [0, wide * 0.4]])))
    shapes = [sk.shape(part, place(spline(hull, closed=True, steps=2)), None, details, group=f"foot{side}")]
    if part == "shoe" and "soles" in c.trimmings:
        level = floor + high * sk.design(14).uniform(0.12, 0.3)
        low = _below(hull, level)
        if len(low) > 3 and np.ptp(low[:, 1]) > 1e-4:
            color = ("accent", "belt", "sock")[int(sk.design(15).integers(3))]
            shapes.append(sk.shape("shoe", place(low), color=color, group=f"sole{side}"))
    return shapes


def _trouser_trim(
    sk: Sketch, joints: tuple[Vec, Vec, Vec], widths: tuple[float, float, float, float, float], side: int
) -> list[Shape]:
    """Seams, stripes and turned-up hems of one trouser leg."""
    trim = sk.character.trimmings
    d = sk.design(16)
    # Seen from a side the seam runs down the middle, from the front along the outer edge.
    place = (d.uniform(0.5, 0.92) * (1 - abs(sk.turn)) + d.uniform(0.0, 0.5) * abs(sk.turn)) * float(d.choice([-1, 1]))
    place = abs(place) * float(np.sign(side * sk.front)) if abs(sk.front) > 0.5 else place

    def line_at(share: float) -> Points:
        left, right = limb(joints, widths)
        # `limb` gives the outer sides; what lies between them is found by their shares.
        n = min(len(left), len(right))
        picks = [np.round(np.linspace(0, len(edge) - 1, n)).astype(int) for edge in (left, right)]
        a, b = left[picks[0]], right[picks[1]]
        a, b = (a, b) if a[0, 0] < b[0, 0] else (b, a)
        return a + (b - a) * (share + 1) / 2

    shapes = []
    if "side stripes" in trim:
        wide = d.uniform(0.12, 0.3)
        low, high = line_at(max(-0.98, place - wide)), line_at(min(0.98, place + wide))
        shapes.append(
            sk.shape("trousers", np.concatenate([low, high[::-1]]), (low, high), color="accent", group=f"stripe{side}")
        )
    elif "seams" in trim:
        seam = line_at(place)
        left, right = offsets(seam, np.full(len(seam), 0.001))
        ribbon = np.concatenate([left, right[::-1]])
        shapes.append(sk.shape("trousers", ribbon, (seam,), group=f"trousers{side}", shaded=False))
    if "cuffs" in trim:
        cuff = _cut(joints, 1 - d.uniform(0.05, 0.12), 1.0)
        left, right = limb(cuff, (widths[4] + 0.004,) * 5)
        outline = np.concatenate([left, right[::-1]])
        color = "accent" if d.random() < 0.3 else "trousers"
        shapes.append(sk.shape("trousers", outline, color=color, group=f"turned{side}"))
    return shapes


def leg(sk: Sketch, which: int) -> list[Shape]:
    """One leg: skin, sock, shoe, and the leg of trousers or shorts."""
    c, b = sk.character, sk.character.build
    o = c.outfit
    bones = sk.figure.legs[which]
    side = bones.side
    joints = bones.points
    w = b.leg
    bare = (w * 1.05, w * 0.98, w * 0.76, w * 0.74, w * 0.5)
    outer = side * sk.front if abs(sk.front) > 0.35 else 0.0
    shapes = foot(sk, bones)
    cloth = {"trousers": 1.0, "shorts": o.lower_hem}.get(o.lower, 0.0)
    boots = o.shoes == "boots"
    if cloth < 0.97:
        shapes += _tube(sk, "leg", "leg", joints, bare, f"leg{side}", True, False, outer)
        if o.socks and o.shoes != "barefoot" and not boots:
            top = sk.design(7).uniform(0.55, 0.9)
            stretch = _cut(joints, top, 1.0)
            wide = np.interp([top, 0.5 + top / 2, 1.0], [0, 0.25, 0.5, 0.75, 1], bare) + 0.003
            shapes += _tube(
                sk,
                "sock",
                "sock",
                stretch,
                (wide[0], wide[0], wide[1], wide[1], wide[2]),
                f"sock{side}",
                False,
                False,
                outer,
            )
            left, right = limb(stretch, (wide[0],) * 5)
            shapes[-1] = sk.shape(
                "sock", shapes[-1].fills, (*shapes[-1].strokes, np.stack([left[0], right[0]])), group=f"sock{side}"
            )
    cut = float(sk.design(8).choice([0.0, 0.2, 0.5, 1.0]))  # from narrow to flared trousers
    boot: list[Shape] = []
    if boots:
        top = sk.design(10).uniform(0.58, 0.85)
        stretch = _cut(joints, top, 1.0)
        wide = (
            np.interp([top, 0.5 + top / 2, 1.0], [0, 0.25, 0.5, 0.75, 1], bare) * 1.08
            + 0.006
            + (o.loose if cut == 0 else 0)
        )
        tube = _tube(
            sk,
            "shoe",
            "shoe",
            stretch,
            (wide[0], wide[0], wide[1], wide[1], wide[2]),
            f"foot{side}",
            False,
            False,
            outer,
        )
        left, right = limb(stretch, (wide[0],) * 5)
        tube[-1] = sk.shape(
            "shoe", tube[-1].fills, (*tube[-1].strokes, np.stack([left[0], right[0]])), group=f"foot{side}"
        )
        # Wide trousers fall over the boots, narrow ones are tucked in.
        boot = tube
    if cut > 0:
        shapes += boot
    if cloth > 0.05:
        slack = o.loose + 0.003
        grown = np.array(bare) * 1.06 + slack
        end = min(cloth, 1.0)
        places = np.array([0, 0.25, 0.5, 0.75, 1.0]) * end
        w0, w1, w2, w3, w4 = np.interp(places, [0, 0.25, 0.5, 0.75, 1], grown)
        low = w4 + cut * w * 0.5
        tubes = _tube(
            sk,
            "trousers",
            "trousers",
            _cut(joints, 0, end),
            (w0, w1, w2 + cut * w * 0.15, w3 + cut * w * 0.3, low),
            f"trousers{side}",
            True,
            True,
            outer,
            o.folds // 2,
        )
        if sk.design(9).random() < 0.3:  # a crease down the front
            a, m, e = _cut(joints, 0.12, end * 0.97)
            crease = spline([a, m, e], steps=4)
            tubes[-1] = sk.shape(
                "trousers", tubes[-1].fills, tubes[-1].strokes, (*tubes[-1].details, crease), group=f"trousers{side}"
            )
        shapes += tubes
        shapes += on_leg(sk, bones, w2) if end > 0.6 else []
        if end > 0.9 and c.trimmings & {"seams", "side stripes", "cuffs"}:
            spread = (w0, w1, w2 + cut * w * 0.15, w3 + cut * w * 0.3, low)
            shapes += _trouser_trim(sk, _cut(joints, 0.0, end), spread, side)
    if cut == 0:
        shapes += boot
    return shapes


def neck(sk: Sketch) -> list[Shape]:
    """The neck between torso and head."""
    f, b = sk.figure, sk.character.build
    base_y = float(f.torso.y[-1])
    base = f.on_torso(np.array([[0.0, base_y - 0.03]]))[0]
    head = f.on_head(np.array([[-0.1 * b.head * np.sin(f.head_yaw), b.head * 0.22]]))[0]
    w = b.neck_width
    side = np.array([w, 0.0])
    flare = np.array([w * 1.3, 0.0])
    left = spline([base - flare, base * 0.6 + head * 0.4 - side, head - side])
    right = spline([base + flare, base * 0.6 + head * 0.4 + side, head + side])
    details = []
    if sk.front > 0.3 and sk.design(11).random() < 0.4:
        details = [np.stack([base * 0.7 + head * 0.3 + side * s, base + side * s * 0.2]) for s in (-0.5, 0.5)]
    # The head's own shadow; its light comes from above.
    chin = float(f.head_at[1]) - sk.design(12).uniform(0.01, 0.05) * b.head
    slant = sk.design(13).uniform(-0.03, 0.03) * b.head
    shade = np.array(
        [
            [head[0] - 1, head[1] + 1],
            [head[0] + 1, head[1] + 1],
            [head[0] + 1, chin + slant],
            [head[0] - 1, chin - slant],
        ]
    )
    outline = np.concatenate([left, right[::-1]])
    return [sk.shape("neck", outline, (left, right), details, group="neck", shadows=[shade])]
