"""Clothes of the torso: what hangs from the shoulders and the hips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from colorcli.train.drawings.curves import Points, ellipse, spline
from colorcli.train.drawings.lathe import Lathe
from colorcli.train.drawings.raster import RGB, Shape
from colorcli.train.drawings.sketch import Sketch


def sleeve_of(sk: Sketch) -> tuple[str, str | RGB] | None:
    """Part and color of the sleeves, or None for bare arms."""
    o = sk.character.outfit
    color_of = {
        "suit": "jacket",
        "open jacket": "jacket",
        "coat": "jacket",
        "dress": "dress",
        "shirt": "shirt",
        "armor": "armor",
        "poncho": "top",
        "vest": "shirt",
        "uniform": "jacket",
        "robe": "dress",
    }
    if o.sleeve <= 0.05 or o.upper in ("bare", "tank"):
        return None
    part = color_of.get(o.upper, "top")
    return part, ("accent" if o.pattern == "sleeves" else part)


def _hem_height(sk: Sketch, hem: float) -> float:
    """0 at the waist, 1 at the knee."""
    waist = sk.height(0.34)
    knee = waist - (sk.height(0.34) - (sk.figure.torso.y[0] - sk.character.build.legs * 0.45))
    return waist + hem * (knee - waist)


def _skirted(sk: Sketch, lathe: Lathe, bottom: float, flare: float) -> Lathe:
    """The torso's solid with cloth hanging from the hips down to `bottom`."""
    start = sk.height(0.16)
    if bottom >= sk.height(0.0) + 0.004:
        return lathe
    w, d, _ = (float(v) for v in lathe.slice_at(start))
    drop = start - bottom
    reach = max(
        [
            abs(float(p[0]) - float(sk.figure.hips[0]))
            for leg in sk.figure.legs
            for p in leg.points
            if p[1] > bottom - 0.03
        ]
        or [0.0]
    )
    reach = (reach + sk.character.build.leg * 1.1) if flare > 0.25 else 0.0
    wide = max(w * (1 + 0.05 * drop) + flare * drop * 0.6, min(reach, w * 2.2) if abs(sk.front) > 0.5 else 0)
    deep = max(d + flare * drop * 0.6, min(reach, d * 2.6) if abs(sk.turn) > 0.5 else 0)
    return lathe.extended(bottom, wide, deep, start)


def _line(lathe: Lathe, sk: Sketch, spots: Sequence[tuple[float, float]], bow: float = 0.0) -> Points:
    """A line on the torso through (share of the half width, height); its share may pass 1 to go round the side."""
    share = np.array([s for s, _ in spots])
    theta = np.where(np.abs(share) <= 1, np.arcsin(np.clip(share, -1, 1)), np.sign(share) * np.pi * 0.5 * np.abs(share))
    return lathe.place(theta, np.array([y for _, y in spots]), sk.figure.yaw, bow)


def _visible(sk: Sketch, lathe: Lathe, share: float, y: float) -> bool:
    return lathe.facing(float(np.arcsin(np.clip(share, -1, 1))), y, sk.figure.yaw) > 0.05


def _shell(
    sk: Sketch,
    part: str,
    lathe: Lathe,
    top: float,
    bottom: float,
    details: Sequence[Points] = (),
    color: str | RGB | None = None,
    group: str = "",
    bow: float = 0.12,
    bow_top: float = 0.35,
    hem: bool = True,
    rim: bool = True,
) -> Shape:
    """A garment all around the torso; hem and rim say which of its two ends has a line."""
    yaw = sk.figure.yaw
    scoop = bow_top if sk.front > -0.2 else bow_top * 0.3
    count = 14
    outline = lathe.shell(top, bottom, yaw, bow, scoop, count)
    left, low = outline[:count], outline[count - 1 : count + 8]
    right, high = outline[count + 7 : 2 * count + 7], np.concatenate([outline[2 * count + 6 :], outline[:1]])
    strokes = [left, right]
    if hem:
        strokes.append(low)
        if "hem seams" in sk.character.trimmings and top - bottom > 0.06:
            seam = sk.design(86).uniform(0.008, 0.025)
            details = [*details, outline[count - 1 : count + 8] + np.array([0.0, seam])]
    if rim:
        strokes.append(high)
    return sk.shape(part, outline, strokes, details, color=color, group=group or part)


def _folds(sk: Sketch, lathe: Lathe, top: float, bottom: float, count: int) -> list[Points]:
    """Open lines in the cloth: from the armpits, the waist and the hem."""
    lines = []
    for _ in range(count):
        kind = sk.rng.integers(3)
        s = float(sk.rng.choice([-1, 1]))
        if kind == 0:
            y = sk.height(sk.rng.uniform(0.68, 0.8))
            lines.append(spline(_line(lathe, sk, [(0.95 * s, y), (0.75 * s, y - 0.02), (0.55 * s, y - 0.05)])))
        elif kind == 1:
            y = sk.height(sk.rng.uniform(0.35, 0.5))
            lines.append(spline(_line(lathe, sk, [(0.98 * s, y), (0.7 * s, y - 0.005), (0.5 * s, y + 0.015)])))
        else:
            x = sk.rng.uniform(0.2, 0.8) * s
            high = bottom + (top - bottom) * sk.rng.uniform(0.1, 0.35)
            lines.append(spline(_line(lathe, sk, [(x, bottom), (x * 0.95, (bottom + high) / 2), (x * 0.85, high)])))
    return lines


def _pinstripes(sk: Sketch, lathe: Lathe, top: float, bottom: float) -> list[Points]:
    """Thin lines woven into the cloth."""
    if sk.character.outfit.pattern != "pinstripes":
        return []
    count = int(sk.design(84).integers(5, 11))
    if sk.design(85).random() < 0.6:
        heights = np.linspace(top, bottom, 6)
        return [_line(lathe, sk, [(share, float(y)) for y in heights]) for share in np.linspace(-0.92, 0.92, count)]
    around = np.linspace(-1, 1, 9)
    return [_line(lathe, sk, [(float(a), y) for a in around], 0.12) for y in np.linspace(top, bottom, count + 2)[1:-1]]


def _buttons(sk: Sketch, lathe: Lathe, top: float, bottom: float, count: int, share: float = 0.0) -> list[Shape]:
    shapes = []
    radius = 0.006 * sk.design(20).uniform(0.7, 1.4)
    for y in np.linspace(top, bottom, count):
        if _visible(sk, lathe, share, float(y)):
            spot = _line(lathe, sk, [(share, float(y))])[0]
            shapes.append(sk.shape("ornament", ellipse(spot, radius, radius, count=10), weight=0.6, shaded=False))
    return shapes


def lower_body(sk: Sketch) -> list[Shape]:
    """The seat of trousers or shorts, or a skirt; drawn over the legs."""
    o = sk.character.outfit
    torso = sk.figure.torso.grown(o.loose * 0.5 + 0.003)
    waist = sk.height(0.36)
    shapes: list[Shape] = []
    if o.lower in ("trousers", "shorts"):
        details = []
        if sk.front > 0.2:
            details.append(_line(torso, sk, [(0.0, sk.height(-0.06)), (0.02, sk.height(0.1)), (0.0, waist)]))
        if o.pockets:
            for s in (-1, 1):
                details.append(_line(torso, sk, [(0.55 * s, waist), (0.95 * s, sk.height(0.14))]))
        seat = torso.extended(sk.height(-0.04), torso.width[0] * 0.97, torso.depth[0] * 0.97, sk.height(0.02))
        shapes.append(_shell(sk, "trousers", seat, waist, sk.height(-0.02), details, hem=False, bow_top=0.1, bow=0.25))
        # Only the middle of the seat's lower edge is seen, between the legs.
        middle = shapes[-1].fills[0][13 + 3 : 13 + 6]
        shapes[-1] = replace(shapes[-1], strokes=(*shapes[-1].strokes, middle))
    elif o.lower == "skirt":
        bottom = sk.figure.torso.y[0] - sk.character.build.legs * o.lower_hem * 0.85
        cloth = _skirted(sk, torso, float(bottom), 0.3 + o.flare)
        pleats = sk.design(21).integers(0, 9)
        details = [
            spline(
                _line(cloth, sk, [(x * 0.9, waist - 0.01), (x * 0.97, (waist + bottom) / 2), (x, float(bottom) - 0.03)])
            )
            for x in np.linspace(-0.85, 0.85, int(pleats))
        ]
        shapes.append(_shell(sk, "skirt", cloth, waist, float(bottom), details, bow_top=0.1, bow=0.14))
        if o.pattern == "border":
            high = float(bottom) + 0.03
            shapes.append(
                _shell(
                    sk, "skirt", cloth.grown(0.001), high, float(bottom), color="accent", group="border", bow_top=0.14
                )
            )
    if o.belt and o.lower != "none":
        top, low = sk.height(0.385), sk.height(0.33)
        belt = torso.grown(0.003)
        shapes.append(_shell(sk, "belt", belt, top, low, bow_top=0.1, bow=0.1))
        if _visible(sk, belt, 0.0, low):
            spot = _line(belt, sk, [(0.0, (top + low) / 2)])[0] - [0, 0.008]
            high = (top - low) * 0.5
            box = spot + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [
                high * (0.3 + 0.9 * max(sk.front, 0)),
                high * 0.9,
            ]
            shapes.append(sk.shape("ornament", box, weight=0.7))
    return shapes


def torso_skin(sk: Sketch) -> list[Shape]:
    """The bare torso."""
    f = sk.figure
    details = []
    if sk.character.outfit.upper == "bare" and sk.front > 0:
        y = sk.height(0.64)
        details = [
            spline(_line(f.torso, sk, [(0.05 * s, y), (0.4 * s, y - 0.015), (0.75 * s, y + 0.02)])) for s in (-1, 1)
        ]
        details.append(_line(f.torso, sk, [(0.0, y + 0.02), (0.0, sk.height(0.4))]))
    return sk.on_torso(
        [_shell(sk, "torso_skin", f.torso, float(f.torso.y[-1]), sk.height(0.1), details, rim=False, hem=False)]
    )


def _neckband(sk: Sketch) -> Lathe:
    """The solid that collars lie on: the neck, widening towards the chest."""
    w = sk.character.build.neck_width
    base = float(sk.figure.torso.y[-1])
    low = sk.height(0.8)
    reach = max(float(sk.figure.torso.slice_at(low)[0]) * 0.55, w * 1.5)
    deep = float(sk.figure.torso.slice_at(low)[1])
    heights = np.array([low, sk.height(0.95), base, base + 0.3 * sk.character.build.head])
    return Lathe(
        heights,
        np.array([reach, w * 1.6, w * 1.3, w * 1.15]),
        np.array([deep, deep * 0.75, w * 1.3, w * 1.2]),
        np.zeros(4),
    )


def _collar(sk: Sketch, part: str, color: str | RGB, size: float, grow: float = 0.004) -> list[Shape]:
    """Two collar leaves around the neck opening; size 0 small to 1 wide."""
    shapes = []
    lathe = _neckband(sk).grown(grow + 0.006 * size)
    base = float(sk.figure.torso.y[-1])
    stand = (0.006 + 0.014 * sk.design(45).random()) * (1 - sk.character.build.head) + grow * 0.5
    tip = base - (0.035 + 0.03 * size) * (1 - sk.character.build.head)
    if sk.front < -0.2:
        return [_shell(sk, part, lathe, base + stand, base - stand, color=color, group="collar", bow_top=-0.1)]
    wide = 0.35 + 0.25 * sk.design(46).random() + 0.2 * size
    for s in (-1, 1):
        theta = np.array([s * 1.9, s * 1.2, s * 0.15, s * wide, s * 1.1, s * 1.9])
        heights = np.array([base + stand, base + stand, base - stand, tip, base - stand, base - stand * 0.5])
        outline = lathe.place(theta, heights, sk.figure.yaw, 0.25)
        if np.ptp(outline[:, 0]) > 0.003:
            shapes.append(sk.shape(part, outline, color=color, group=f"collar{s}"))
    return shapes


def _tie(sk: Sketch, lathe: Lathe, end: float) -> list[Shape]:
    o = sk.character.outfit
    top = float(sk.figure.torso.y[-1]) - 0.012 * (1 - sk.character.build.head)
    if not _visible(sk, lathe, 0.0, top) or not o.tie:
        return []
    w = 0.2 * sk.design(22).uniform(0.7, 1.2)
    if o.tie == "bow":
        shapes = []
        for s in (-1, 1):
            shapes.append(
                sk.shape(
                    "tie",
                    _line(
                        lathe, sk, [(0, top), (s * 0.32, top + 0.015), (s * 0.32, top - 0.035), (0, top - 0.015)], 0.3
                    ),
                    group="tie",
                )
            )
        return shapes
    low = sk.height(end)
    size = sk.character.build.neck_width * sk.design(47).uniform(0.5, 0.8)
    across = np.array([max(abs(sk.front), 0.35), 0.0]) * size

    def spot(y: float) -> Points:
        return _line(lathe, sk, [(0.0, y)], 0.1)[0]

    knot_low = top - size * 1.1
    knot = np.stack(
        [
            spot(top) - across * 0.75,
            spot(top) + across * 0.75,
            spot(knot_low) + across * 0.45,
            spot(knot_low) - across * 0.45,
        ]
    )
    broad = across * (0.8 + 2 * w)
    blade = np.stack(
        [
            spot(knot_low) - across * 0.42,
            spot(knot_low) + across * 0.42,
            spot(low + size) + broad,
            spot(low),
            spot(low + size) - broad,
        ]
    )
    return [sk.shape("tie", blade, group="tie"), sk.shape("tie", knot, group="tie")]


def _lapels(sk: Sketch, lathe: Lathe, low: float, color: str | RGB) -> list[Shape]:
    """The turned edges of a jacket, down to the height where it closes."""
    d = sk.design(23)
    wide, notch, style = d.uniform(0.3, 0.55), d.uniform(0.55, 0.75), d.integers(3)
    top = sk.height(1.03)

    def at(share: float) -> float:
        return top + (low - top) * share

    shapes = []
    for s in (-1, 1):
        if style == 2:  # a shawl collar
            spots = [(0.42, at(0)), (0.25, at(0.35)), (0.0, low), (0.1, low), (wide + 0.1, at(0.45)), (0.55, at(0.1))]
        else:
            spots = [
                (0.42, at(0)),
                (0.25, at(0.35)),
                (0.0, low),
                (0.06, low),
                (wide + 0.12, at(notch * 0.62)),
                (wide - 0.06, at(notch * 0.52)),
                (wide + 0.1, at(notch * 0.4)),
                (0.58, at(0.05)),
            ]
        spots = [(x * s, y) for x, y in spots]
        outline = _line(lathe, sk, spots, 0.1)
        shapes.append(sk.shape("jacket", outline, color=color, group=f"lapel{s}"))
    return shapes


def upper_body(sk: Sketch) -> list[Shape]:
    """Everything worn on the torso, lowest first; arms and head come later."""
    o = sk.character.outfit
    f = sk.figure
    yaw = f.yaw
    skin = f.torso
    cloth = skin.grown(o.loose + 0.003)
    base = float(skin.y[-1])
    top = sk.height(1.035)
    waist = sk.height(0.34)
    hem = _hem_height(sk, o.hem)
    shapes: list[Shape] = []
    upper = o.upper
    color_top: str | RGB = "top"

    def emblem(lathe: Lathe) -> list[Shape]:
        if o.pattern != "emblem" or not _visible(sk, lathe, 0.0, sk.height(0.7)):
            return []
        size = sk.design(24).uniform(0.15, 0.4)
        t = np.linspace(0, 2 * np.pi, 9)[:-1] if sk.design(24).random() < 0.5 else np.linspace(0, 2 * np.pi, 5)[:-1]
        mid = sk.height(0.7)
        w = float(lathe.slice_at(mid)[0])
        return [
            sk.shape(
                "ornament",
                _line(lathe, sk, [(size * np.cos(k), mid + size * w * np.sin(k)) for k in t]),
                color="accent",
            )
        ]

    def band(lathe: Lathe, part: str, low: float) -> list[Shape]:
        if o.pattern != "stripes":
            return []
        n = int(sk.design(25).integers(1, 4))
        edges = np.linspace(sk.height(0.72), low, 2 * n + 2)
        return [
            _shell(
                sk,
                part,
                lathe.grown(0.0005),
                float(edges[2 * k]),
                float(edges[2 * k + 1]),
                color="accent",
                group=f"stripe{k}",
                bow_top=0.12,
            )
            for k in range(n)
        ]

    if upper in ("t-shirt", "sweater", "hoodie", "shirt", "overalls", "vest", "poncho"):
        part = "shirt" if upper in ("shirt", "vest") else "top"
        bottom = min(hem, waist - 0.01)
        tucked = (upper in ("shirt", "t-shirt") and sk.design(26).random() < 0.4) or upper in ("overalls", "vest")
        bottom = waist - 0.01 if tucked else bottom
        lathe = _skirted(sk, cloth, bottom, 0.15)
        details = _folds(sk, lathe, top, bottom, o.folds) + _pinstripes(sk, lathe, top, bottom)
        neckline = sk.design(27).uniform(0.2, 1.1)
        if upper in ("shirt", "vest") and _visible(sk, lathe, 0.0, waist):
            details += [_line(lathe, sk, [(0.0, sk.height(0.95)), (0.0, bottom - 0.03)])]
        if upper == "hoodie" and o.pockets and sk.front > 0:
            a, b = bottom + 0.035, sk.height(0.42)
            details.append(_line(lathe, sk, [(-0.65, a), (-0.4, b), (0.4, b), (0.65, a)]))
        shapes.append(
            _shell(
                sk,
                part,
                lathe,
                top,
                bottom,
                details,
                color=color_top if part == "top" else part,
                group="upper",
                bow_top=neckline if upper not in ("shirt", "vest") else 0.2,
            )
        )
        if upper == "sweater" and sk.design(83).random() < 0.35:
            roll = _neckband(sk).grown(0.006)
            shapes.append(_shell(sk, "top", roll, base + 0.02, base - 0.012, group="roll", bow_top=0.12, bow=0.3))
        if upper in ("sweater", "hoodie") and sk.design(28).random() < 0.6:
            shapes.append(_shell(sk, part, lathe.grown(0.001), bottom + 0.022, bottom, group="band", bow_top=0.12))
        shapes += band(lathe, part, bottom + 0.03) + emblem(lathe)
        if upper in ("shirt", "vest"):
            shapes += _buttons(sk, lathe, sk.height(0.86), bottom + 0.03, o.buttons + 2)
            shapes += _tie(sk, lathe, 0.45)
            shapes += _collar(sk, "shirt", "shirt", sk.design(29).random())
        if upper == "hoodie":
            shapes += _collar(sk, "top", "top", 1.0, 0.014)
    if upper == "uniform":
        lathe = _skirted(sk, cloth.grown(0.005), hem, 0.1 + 0.2 * o.flare)
        details = _folds(sk, lathe, top, hem, o.folds) + _pinstripes(sk, lathe, top, hem)
        double = sk.design(48).random() < 0.4
        edge = sk.design(49).choice([0.0, 0.0, 0.3, -0.3])
        if _visible(sk, lathe, float(edge), waist):
            details.append(
                _line(lathe, sk, [(edge * 0.5, sk.height(1.0)), (edge, sk.height(0.8)), (edge, hem - 0.02)], 0.1)
            )
        shapes.append(_shell(sk, "jacket", lathe, top, hem, details, group="jacket", bow_top=0.2))
        shapes += emblem(lathe)
        for share in (-0.3, 0.3) if double else (float(edge) * 0.8,):
            shapes += _buttons(sk, lathe, sk.height(0.85), max(hem + 0.05, sk.height(0.35)), o.buttons + 2, share)
        if o.belt:
            shapes.append(_shell(sk, "belt", lathe.grown(0.002), sk.height(0.42), sk.height(0.33), bow_top=0.1))
        if sk.design(80).random() < 0.4 and sk.front > 0:
            for s in (-1, 1):
                y = sk.height(0.94)
                pad = _line(
                    lathe, sk, [(0.45 * s, y + 0.012), (0.98 * s, y), (0.95 * s, y - 0.03), (0.5 * s, y - 0.015)]
                )
                shapes.append(sk.shape("ornament", pad, color="accent", group=f"epaulette{s}"))
        shapes += _collar(sk, "jacket", "accent" if sk.design(41).random() < 0.4 else "jacket", 0.2, 0.012)
    if upper == "robe":
        bottom = float(f.torso.y[0] - sk.character.build.legs * max(o.lower_hem, 0.35) * 0.95)
        lathe = _skirted(sk, cloth.grown(0.004), bottom, 0.26 + 0.3 * o.flare)
        way = float(sk.design(81).choice([-1, 1]))
        cross = sk.height(0.5)
        details = [
            spline(_line(lathe, sk, [(0.0, waist), (0.2 * way, (waist + bottom) / 2), (0.3 * way, bottom - 0.02)]))
        ]
        shapes.append(_shell(sk, "dress", lathe, top, bottom, details if sk.front > 0 else [], bow_top=0.2, bow=0.14))
        if sk.front > -0.3:
            opening = _line(
                lathe,
                sk,
                [(-0.4, top), (-0.2, sk.height(0.93)), (0.0, sk.height(0.72)), (0.2, sk.height(0.93)), (0.4, top)],
                0.1,
            )
            shapes.append(sk.shape("shirt", opening, group="opening"))
            for k in (-way, way):
                band_outline = _line(
                    lathe,
                    sk,
                    [
                        (0.5 * k, top),
                        (0.3 * k, top),
                        (0.15 * k, sk.height(0.85)),
                        (-0.35 * k, cross),
                        (-0.15 * k, cross - 0.01),
                        (0.35 * k, sk.height(0.84)),
                    ],
                    0.1,
                )
                shapes.append(sk.shape("dress", band_outline, color="accent", group=f"border{k}"))
        shapes.append(
            _shell(
                sk,
                "belt",
                cloth.grown(0.007),
                sk.height(0.5),
                sk.height(0.5 - sk.design(82).uniform(0.08, 0.25)),
                bow_top=0.1,
            )
        )
    if upper == "tank":
        lathe = _skirted(sk, cloth, hem, 0.1)
        shapes.append(
            _shell(
                sk,
                "top",
                lathe,
                sk.height(0.84),
                min(hem, waist - 0.01),
                _folds(sk, lathe, top, hem, o.folds) + _pinstripes(sk, lathe, top, hem),
                bow_top=0.15,
            )
        )
        for s in (-1, 1):
            strap = _line(
                lathe,
                sk,
                [
                    (0.45 * s, sk.height(1.0)),
                    (0.75 * s, sk.height(0.99)),
                    (0.8 * s, sk.height(0.8)),
                    (0.4 * s, sk.height(0.8)),
                ],
            )
            shapes.append(
                sk.shape(
                    "top",
                    strap,
                    (strap[:1], np.stack([strap[0], strap[3]]), np.stack([strap[1], strap[2]])),
                    group="top",
                )
            )
        shapes += band(lathe, "top", hem + 0.03) + emblem(lathe)
    if upper == "armor":
        lathe = cloth.grown(0.006)
        y = sk.height(0.5)
        details = [
            _line(lathe, sk, [(0.0, top), (0.0, y)]),
            spline(_line(lathe, sk, [(-0.9, y + 0.02), (0.0, y - 0.02), (0.9, y + 0.02)])),
        ]
        shapes.append(_shell(sk, "armor", lathe, top, waist - 0.02, details, bow_top=0.3))
        skirt = _skirted(sk, lathe, min(hem, sk.height(0.02)), 0.3)
        low = min(hem, sk.height(0.02))
        splits = [_line(skirt, sk, [(x, waist), (x * 1.1, low - 0.02)]) for x in (-0.6, -0.2, 0.2, 0.6)]
        shapes.append(
            _shell(
                sk,
                "armor",
                skirt,
                waist + 0.01,
                low,
                splits,
                color="accent" if sk.design(30).random() < 0.4 else "armor",
                group="tasset",
            )
        )
        shapes += emblem(lathe)
    if upper == "dress":
        bottom = float(f.torso.y[0] - sk.character.build.legs * o.lower_hem * 0.9)
        lathe = _skirted(sk, cloth, bottom, 0.25 + o.flare * 0.9)
        deep = sk.design(31).random() < 0.4
        pleats = [
            spline(_line(lathe, sk, [(x * 0.8, waist - 0.02), (x, (waist + bottom) / 2), (x, bottom - 0.02)]))
            for x in sk.design(32).uniform(-0.8, 0.8, int(o.folds))
        ]
        shapes.append(
            _shell(
                sk,
                "dress",
                lathe,
                sk.height(0.85) if deep else top,
                bottom,
                pleats,
                bow_top=0.2 if deep else sk.design(33).uniform(0.3, 1.6),
                bow=0.14,
            )
        )
        if o.pattern == "border":
            shapes.append(
                _shell(
                    sk,
                    "dress",
                    lathe.grown(0.001),
                    bottom + 0.035,
                    bottom,
                    color="accent",
                    group="border",
                    bow_top=0.14,
                )
            )
        if o.belt or sk.design(34).random() < 0.4:
            shapes.append(_shell(sk, "belt", cloth.grown(0.003), sk.height(0.42), sk.height(0.36), bow_top=0.12))
        shapes += emblem(lathe)
    if upper == "overalls":
        lathe = cloth.grown(0.004)
        bib = _line(lathe, sk, [(-0.55, sk.height(0.7)), (0.55, sk.height(0.7)), (0.7, waist), (-0.7, waist)])
        if _visible(sk, lathe, 0.0, waist):
            shapes.append(sk.shape("trousers", bib, group="trousers"))
        for s in (-1, 1):
            strap = _line(
                lathe,
                sk,
                [
                    (0.4 * s, sk.height(1.0)),
                    (0.58 * s, sk.height(1.0)),
                    (0.52 * s, sk.height(0.66)),
                    (0.36 * s, sk.height(0.66)),
                ],
            )
            shapes.append(sk.shape("trousers", strap, group="trousers"))
        shapes += _buttons(sk, lathe, sk.height(0.67), sk.height(0.67), 1, 0.45) + _buttons(
            sk, lathe, sk.height(0.67), sk.height(0.67), 1, -0.45
        )
    if upper == "poncho":
        wide = sk.character.build.shoulder * 1.5
        lathe = cloth.extended(sk.height(0.1), wide, wide * 0.8, sk.height(0.9))
        shapes.append(
            _shell(
                sk,
                "cape",
                lathe,
                top,
                sk.height(0.1),
                _folds(sk, lathe, top, sk.height(0.2), o.folds + 2),
                bow_top=0.4,
                bow=0.25,
            )
        )
    if upper in ("suit", "coat", "open jacket", "vest"):
        outer = cloth.grown(0.006 if upper != "vest" else 0.003)
        low_hem = hem if upper != "vest" else sk.height(0.2)
        outer = _skirted(sk, outer, low_hem, 0.08 + 0.25 * o.flare * (upper == "coat"))
        color: str | RGB = "jacket"
        details = _folds(sk, outer, top, low_hem, o.folds) + _pinstripes(sk, outer, top, low_hem)
        if o.pockets:
            for s in (-1, 1):
                y = max(sk.height(0.24), low_hem + 0.03)
                details.append(_line(outer, sk, [(0.35 * s, y), (0.75 * s, y + 0.006)]))
        close_at = sk.height(1.0 - o.opening * (1.0 if upper == "suit" else 0.5))
        opened = upper == "open jacket" and sk.front > -0.35
        if opened:
            inner = _skirted(sk, cloth, min(hem, waist), 0.1)
            plain = sk.design(35).random() < 0.65
            part = "top" if plain else "shirt"
            shapes.append(
                _shell(
                    sk,
                    part,
                    inner,
                    top,
                    waist - 0.012 if sk.design(36).random() < 0.5 else min(hem, waist) - 0.005,
                    bow_top=sk.design(37).uniform(0.25, 0.9) if plain else 0.2,
                    group="inner",
                )
            )
            shapes += emblem(inner)
            if not plain:
                shapes += (
                    _buttons(sk, inner, sk.height(0.85), waist, o.buttons + 1)
                    + _tie(sk, inner, 0.4)
                    + _collar(sk, "shirt", "shirt", 0.5)
                )
            gap = sk.design(38).uniform(0.12, 0.6)
            heights = np.linspace(sk.height(1.05), low_hem, 12)
            for s in (-1, 1):
                edge = s * np.interp(heights, [low_hem, sk.height(0.8), sk.height(1.05)], [gap, gap * 0.9, 0.6])
                around = np.linspace(edge[-1], s * np.pi, 8)
                front = outer.place(edge, heights, yaw, 0.1)
                full = outer.place(
                    np.concatenate([edge, around[1:], np.full(11, s * np.pi)]),
                    np.concatenate([heights, np.full(7, low_hem), heights[::-1][1:]]),
                    yaw,
                    0.1,
                )
                if np.ptp(full[:, 0]) > 0.004:
                    body = full[12 + 7 :]
                    hem_line = full[11 : 12 + 7]
                    shapes.append(
                        sk.shape("jacket", full, (front, hem_line, body), details, color=color, group=f"jacket{s}")
                    )
        else:
            if upper == "coat" and _visible(sk, outer, 0.0, waist):
                details.append(_line(outer, sk, [(0.05, close_at), (0.05, low_hem - 0.05)]))
            shapes.append(
                _shell(sk, "jacket", outer, sk.height(1.04), low_hem, details, color=color, group="jacket", bow_top=0.2)
            )
        if sk.front > -0.3:
            if upper in ("suit", "coat", "vest"):
                opening = _line(
                    outer,
                    sk,
                    [
                        (-0.5, sk.height(1.05)),
                        (-0.3, sk.height(0.9)),
                        (0.0, close_at),
                        (0.3, sk.height(0.9)),
                        (0.5, sk.height(1.05)),
                    ],
                    0.1,
                )
                collared = upper != "coat" or sk.design(39).random() < 0.5
                shapes.append(sk.shape("shirt" if collared else "scarf", opening, group="opening"))
                if collared:
                    shapes += _buttons(sk, outer, sk.height(0.9), close_at + 0.02, 2) if not o.tie else []
                    shapes += _tie(sk, outer, 1.0 - o.opening * (0.95 if upper == "suit" else 0.5))
                    shapes += _collar(sk, "shirt", "shirt", sk.design(29).random())
                front_line = _line(
                    outer, sk, [(0.0, close_at), (0.03, (close_at + low_hem) / 2), (0.08, low_hem - 0.03)]
                )
                if _visible(sk, outer, 0.0, waist):
                    shapes.append(
                        sk.shape("jacket", front_line, (front_line,), color=color, group="jacket", shaded=False)
                    )
                    shapes += _buttons(sk, outer, close_at - 0.02, max(low_hem + 0.06, sk.height(0.2)), o.buttons, 0.08)
            if (
                upper != "vest"
                and (upper != "coat" or sk.design(40).random() < 0.6)
                and (upper != "open jacket" or sk.design(40).random() < 0.5)
            ):
                shapes += _lapels(sk, outer.grown(0.002), close_at, color)
            elif upper != "vest":
                shapes += _collar(sk, "jacket", "accent" if sk.design(41).random() < 0.3 else color, 1.2, 0.012)
        else:
            shapes += _collar(sk, "jacket", color, 0.8, 0.01)
    if o.apron and sk.front > -0.5:
        lathe = _skirted(sk, cloth.grown(0.008), sk.height(-0.35), 0.2)
        low = sk.height(-0.35)
        outline = _line(
            lathe,
            sk,
            [
                (-0.4, sk.height(0.8)),
                (0.4, sk.height(0.8)),
                (0.5, sk.height(0.42)),
                (0.85, sk.height(0.36)),
                (0.85, low),
                (-0.85, low),
                (-0.85, sk.height(0.36)),
                (-0.5, sk.height(0.42)),
            ],
            0.1,
        )
        shapes.append(
            sk.shape("apron", outline, details=[_line(lathe, sk, [(-0.7, sk.height(0.39)), (0.7, sk.height(0.39))])])
        )
    if o.scarf:
        y = sk.height(1.0)
        roll = _neckband(sk).grown(0.016)
        shapes.append(
            _shell(
                sk, "scarf", roll, base + 0.014, sk.height(0.97), _folds(sk, roll, base, y, 2), bow_top=0.15, bow=0.35
            )
        )
        way = float(sk.design(42).choice([-1.0, 1.0]))
        if _visible(sk, cloth, 0.25 * way, y):
            end = _line(
                cloth.grown(0.012),
                sk,
                [(0.1 * way, y), (0.3 * way, y), (0.45 * way, sk.height(0.55)), (0.15 * way, sk.height(0.52))],
            )
            shapes.insert(-1, sk.shape("scarf", end, group="scarf end"))

    return sk.on_torso(shapes)


def cape(sk: Sketch) -> list[Shape]:
    """A cape from the shoulders: behind the body seen from the front, over it from the back."""
    if not sk.character.outfit.cape:
        return []
    b = sk.character.build
    top, bottom = sk.height(1.0), float(sk.figure.torso.y[0] - b.legs * sk.design(43).uniform(0.2, 0.75))
    wide = b.shoulder * (0.35 + 0.65 * abs(sk.front))
    flare = wide * sk.design(44).uniform(1.1, 1.9)
    back = -sk.turn * b.shoulder * 0.5
    sway = float(sk.rng.normal(0, 0.03)) + 0.12 * sk.drag
    outline = spline(
        [
            (-wide * 0.9, top),
            (-wide * 1.1 + back * 0.4, top - 0.08),
            (-flare + back + sway, bottom),
            (back + sway, bottom - 0.015),
            (flare + back + sway, bottom),
            (wide * 1.1 + back * 0.4, top - 0.08),
            (wide * 0.9, top),
        ],
        closed=True,
        roundness=0.3,
    )
    folds = [spline([(x * wide, top - 0.1), (x * flare + back, bottom)]) for x in (-0.5, 0.1, 0.55)]
    return sk.on_torso([sk.shape("cape", outline, details=folds)])
