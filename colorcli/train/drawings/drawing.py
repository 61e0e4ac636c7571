"""One drawing of a character: colors, line art, mask and the part of every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colorcli.train.drawings import body, garments, raster
from colorcli.train.drawings.background import paint_background
from colorcli.train.drawings.character import Character
from colorcli.train.drawings.curves import close, ellipse, rotated, spline, unit
from colorcli.train.drawings.head import head
from colorcli.train.drawings.parts import TAG, TAGS
from colorcli.train.drawings.pose import choose_pose, place_figure, swayed
from colorcli.train.drawings.raster import Shape
from colorcli.train.drawings.sketch import Sketch, moved

VIEWS = ("front", "three-quarter", "side", "back")
FRAMINGS = ("full", "upper", "bust")


@dataclass(frozen=True)
class Drawing:
    """A drawing with all that is known of it; every array has the same height and width."""

    color: NDArray[np.uint8]  # (H, W, 3) RGB, lines drawn on
    flat: NDArray[np.uint8]  # (H, W, 3) RGB without lines, fills reach under them
    line: NDArray[np.uint8]  # (H, W) 255 = paper, dark lines
    mask: NDArray[np.uint8]  # (H, W) 255 inside the character
    parts: NDArray[np.uint8]  # (H, W) index into PARTS
    regions: NDArray[np.int32]  # (H, W) number of the drawn shape, 0 = background
    tags: NDArray[np.float32]  # (len(TAGS),) 0 or 1


def _prop(sk: Sketch, which: int) -> list[Shape]:
    """What the hand holds."""
    kind = sk.character.outfit.prop
    arm = sk.figure.arms[which]
    if not kind:
        return []
    d = sk.design(70)
    grip = arm.points[2] + unit(arm.end) * 0.03
    size = d.uniform(0.7, 1.3)
    if kind in ("stick", "sword"):
        up = unit(np.array([0.25 * arm.side * sk.front + 0.2, 1.0]))
        across = np.array([up[1], -up[0]])
        low, high = (-0.45, 0.3) if kind == "stick" else (-0.06, 0.45)
        w = 0.009 if kind == "stick" else 0.014
        blade = np.stack(
            [
                grip + up * low * size - across * w,
                grip + up * high * size - across * w,
                grip + up * (high + 0.02) * size,
                grip + up * high * size + across * w,
                grip + up * low * size + across * w,
            ]
        )
        shapes = [sk.shape("prop", blade, group="prop")]
        if kind == "sword":
            guard = np.stack(
                [grip + up * a + across * b for a, b in ((0.02, -0.05), (0.035, -0.05), (0.035, 0.05), (0.02, 0.05))]
            )
            shapes.append(sk.shape("prop", guard, color="accent", group="guard"))
        return shapes
    if kind == "ball":
        return [sk.shape("prop", ellipse(grip - [0, 0.03], 0.05 * size, 0.05 * size), group="prop")]
    if kind == "bag":
        box = spline(
            grip + np.array([[-0.06, -0.2], [0.06, -0.2], [0.055, -0.07], [-0.055, -0.07]]) * size, True, 0.15, 4
        )
        strap = [grip + np.array([[-0.04, -0.07], [-0.03, 0.0], [0.03, 0.0], [0.04, -0.07]]) * size]
        return [sk.shape("prop", strap[0], group="strap"), sk.shape("prop", box, group="prop")]
    tall = 0.07 if kind == "cup" else 0.1
    wide = 0.025 if kind == "cup" else 0.06
    box = (
        grip
        + np.array([[-wide, -tall * 0.6], [wide, -tall * 0.6], [wide * 1.15, tall * 0.6], [-wide * 1.15, tall * 0.6]])
        * size
    )
    inner = close(box * 0.85 + box.mean(0) * 0.15)
    return [sk.shape("prop", box, details=[inner] if kind == "book" else [], group="prop")]


def compose(sk: Sketch) -> list[Shape]:
    """All shapes of a character, lowest first."""
    f = sk.figure
    o = sk.character.outfit
    parts = head(sk)
    sleeve = garments.sleeve_of(sk)
    holding = 1 if sk.design(71).random() < 0.7 else 0
    arms: list[tuple[float, list[Shape]]] = []
    for k in (0, 1):
        near = f.arms[k].near
        drawn = body.arm(sk, k, sleeve)
        if k == holding and o.prop:
            drawn = _prop(sk, k) + drawn if near[2] < 0.02 else drawn + _prop(sk, k)
        arms.append((0.3 * near[0] + 0.3 * near[1] + 0.4 * near[2], drawn))
    arms.sort(key=lambda item: item[0])
    legs = [(f.legs[k].near[1] + f.legs[k].near[2], body.leg(sk, k)) for k in (0, 1)]
    legs.sort(key=lambda item: item[0])
    # From front and back an arm at the side lies over the torso; from the side only the nearer one does.
    threshold = -0.025 if abs(sk.front) > 0.6 else 0.0
    far = [shape for near_by, drawn in arms if near_by < threshold for shape in drawn]
    close_by = [shape for near_by, drawn in arms if near_by >= threshold for shape in drawn]
    cape = garments.cape(sk)
    shapes = list(parts.behind)
    shapes += cape if sk.front > -0.2 else []
    shapes += far
    shapes += legs[0][1] + legs[1][1]
    shapes += garments.torso_skin(sk)
    shapes += garments.lower_body(sk)
    shapes += body.neck(sk)
    shapes += garments.upper_body(sk)
    shapes += cape if sk.front <= -0.2 else []
    shapes += parts.back
    raised = max(float(arm.points[2][1]) for arm in f.arms) > f.head_at[1]
    shapes += [*parts.front, *close_by] if raised else [*close_by, *parts.front]
    return shapes


def _tags(sk: Sketch, view: str, framing: str, busy: bool) -> NDArray[np.float32]:
    c = sk.character
    o, h = c.outfit, c.hair
    has = {
        "front view": view == "front",
        "three-quarter view": view == "three-quarter",
        "side view": view == "side",
        "back view": view == "back",
        "full body": framing == "full",
        "upper body": framing == "upper",
        "head and shoulders": framing == "bust",
        "short hair": h.style in ("short", "spiky", "bob", "curly", "afro", "receding"),
        "long hair": h.style == "long",
        "tied hair": h.style in ("ponytail", "twin tails", "bun", "braid", "braids"),
        "spiky hair": h.style == "spiky",
        "bald": h.style == "bald",
        "fringe": h.fringe != "none" and h.style != "bald",
        "beard": bool(c.face.beard),
        "glasses": bool(c.face.glasses),
        "hat": bool(o.hat),
        "suit": o.upper == "suit",
        "tie": bool(o.tie) and o.upper in ("suit", "coat", "shirt", "vest"),
        "open jacket": o.upper == "open jacket",
        "closed coat": o.upper in ("coat", "uniform"),
        "t-shirt": o.upper == "t-shirt",
        "sweater": o.upper in ("sweater", "hoodie"),
        "buttoned shirt": o.upper == "shirt",
        "dress": o.upper in ("dress", "robe"),
        "skirt": o.lower == "skirt",
        "trousers": o.lower == "trousers",
        "shorts": o.lower == "shorts",
        "cape": o.cape,
        "scarf": o.scarf,
        "apron": o.apron,
        "armor": o.upper == "armor",
        "gloves": o.gloves,
        "boots": o.shoes == "boots",
        "belt": o.belt,
        "prop": bool(o.prop),
        "shaded": c.shading is not None,
        "busy background": busy,
    }
    tags = np.zeros(len(TAGS), np.float32)
    for name, true in has.items():
        tags[TAG[name]] = float(true)
    return tags


def draw(
    character: Character,
    pose_seed: int,
    size: tuple[int, int] = (384, 384),
    view: str | None = None,
    background: str | None = None,
    framing: str | None = None,
    sway: int | None = None,
) -> Drawing:
    """Draw a character in a pose that pose_seed chooses; the same arguments give the same pixels.

    sway: number of a frame of one shot: camera, view and expression are those of frame 0, limbs have moved by some.
    size: width and height of the picture, px. view: one of VIEWS, background: one of BACKGROUNDS, framing: one of
    FRAMINGS; each is drawn by lot where it is None.
    """
    rng = np.random.default_rng((character.seed, 2, pose_seed))
    width, height = size
    lots = rng.random(3)
    view = view or VIEWS[int(np.searchsorted([0.42, 0.7, 0.9], lots[0]))]
    background = background or ("plain", "flat", "busy")[int(np.searchsorted([0.72, 0.86], lots[1]))]
    framing = framing or FRAMINGS[int(np.searchsorted([0.65, 0.87], lots[2]))]
    assert view in VIEWS and framing in FRAMINGS, (view, framing)
    facing = float(rng.choice([-1, 1]))
    yaw = (
        facing
        * {
            "front": rng.uniform(0, 0.16),
            "three-quarter": rng.uniform(0.35, 1.05),
            "side": rng.uniform(1.05, 1.6),
            "back": rng.uniform(2.5, np.pi) if rng.random() < 0.65 else rng.uniform(1.9, 2.5),
        }[view]
    )
    pose = choose_pose(rng, yaw)
    camera = rng
    if sway is not None:
        camera = np.random.default_rng((character.seed, 5, pose_seed))
        moving = np.random.default_rng((character.seed, 4, pose_seed, sway))
        if sway > 0:
            pose = swayed(pose, moving, float(moving.uniform(0.2, 1.0)))
            yaw += float(moving.normal(0, 0.04))
    figure = place_figure(character.build, pose, yaw)
    sk = Sketch(character, figure, rng)
    shapes = compose(sk)
    if camera.random() < 0.15:  # a jump, a fall, a tilted camera
        # A framing cut to the head is laid around the head, so the head stays where it is.
        pivot, spread = (figure.hips, 0.25) if framing == "full" else (figure.head_at, 0.12)
        roll = float(camera.normal(0, spread))
        shapes = [moved(shape, lambda points: rotated(points, roll, pivot)) for shape in shapes]

    points = np.concatenate([p for s in shapes for p in s.fills])
    low, high = points.min(0), points.max(0)
    if framing == "full":
        fill = 0.95 - 0.35 * camera.random() ** 1.6
        scale = min(fill * height / (high[1] - low[1]), 0.97 * width / (high[0] - low[0]))
        bottom = camera.uniform(0.3, 0.7) * (height - scale * (high[1] - low[1]))
        to_picture = (scale, width / 2 - scale * (low[0] + high[0]) / 2, height - bottom + scale * low[1])
        room = max(width - scale * (high[0] - low[0]), 0) / 2
        to_picture = (scale, to_picture[1] + camera.uniform(-0.8, 0.8) * room, to_picture[2])
    else:
        chin = float(figure.head_at[1])
        if framing == "upper":
            level = figure.hips[1] - 0.1 + camera.uniform(-0.1, 0.15)
        else:
            level = chin - camera.uniform(0.1, 0.25)
        crown = float(figure.head_at[1] + character.build.head * 1.15)
        top = max(crown, float(high[1]) if camera.random() < 0.5 else 0.0)
        scale = height * camera.uniform(0.84, 0.97) / (top - level)
        middle = float(figure.head_at[0] * 0.5 + figure.hips[0] * 0.5)
        to_picture = (scale, width * camera.uniform(0.42, 0.58) - scale * middle, height + scale * level)

    layers = raster.new_layers(width, height)
    line_px = character.pen.width * raster.SCALE * height / 512
    setting = np.random.default_rng((character.seed, 3, pose_seed))
    paper, paper_ink = paint_background(background, width * raster.SCALE, height * raster.SCALE, line_px, setting)
    raster.draw_shapes(layers, shapes, to_picture, character.pen, character.shading, rng)
    pictures = raster.develop(layers, paper, paper_ink, character.shading)
    mask = np.where(pictures.parts > 0, np.uint8(255), np.uint8(0))
    return Drawing(
        pictures.color,
        pictures.flat,
        pictures.line,
        mask,
        pictures.parts,
        pictures.regions,
        _tags(sk, view, framing, background == "busy"),
    )
