"""One drawing of a character: colors, line art, mask and the part of every pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from colorcli.train.drawings import body, garments, raster, trimmings
from colorcli.train.drawings.background import paint_background
from colorcli.train.drawings.character import Character
from colorcli.train.drawings.curves import close, ellipse, rotated, spline, unit
from colorcli.train.drawings.head import head
from colorcli.train.drawings.parts import TAG, TAGS
from colorcli.train.drawings.pose import (
    Figure,
    Pose,
    between,
    choose_pose,
    choose_stride,
    place_figure,
    strode,
    swayed,
)
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
    shading = sk.character.shading
    if shading is not None and shading.far and abs(sk.front) < 0.6:
        arms = [(by, [replace(s, dark=True) for s in drawn] if by < threshold else drawn) for by, drawn in arms]
        legs[0] = (legs[0][0], [replace(shape, dark=True) for shape in legs[0][1]])
    far = [shape for near_by, drawn in arms if near_by < threshold for shape in drawn]
    close_by = [shape for near_by, drawn in arms if near_by >= threshold for shape in drawn]
    cape = garments.cape(sk)
    shapes = list(parts.behind)
    carried = trimmings.behind_body(sk)
    shapes += carried if sk.front > -0.2 else []
    shapes += cape if sk.front > -0.2 else []
    shapes += far
    shapes += legs[0][1] + legs[1][1]
    shapes += garments.torso_skin(sk)
    shapes += garments.lower_body(sk)
    shapes += body.neck(sk)
    shapes += garments.upper_body(sk)
    shapes += trimmings.on_chest(sk)
    shapes += cape if sk.front <= -0.2 else []
    shapes += carried if sk.front <= -0.2 else []
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


def _moved(pose: Pose, yaw: float, motion: np.random.Generator, frame: int) -> tuple[Pose, Pose, float]:
    """The pose at frame 0 and at a frame of its shot, and how far loose things trail (see Sketch.drag).

    Who is drawn in the middle of a step walks or runs on; others gesture, or stand and breathe.
    """
    lots = motion.random(3)
    legs = pose.name.split(",")[0]
    side_on = abs(np.sin(yaw)) > 0.6
    walking = legs in ("walk", "run") or (side_on and legs in ("stand", "apart", "contrapposto") and lots[0] < 0.55)
    if walking and lots[1] < 0.9:
        running = legs == "run" or (legs != "walk" and lots[2] < 0.15)
        stride = choose_stride(motion, running)
        drag = -float(np.sin(yaw)) * (0.8 if running else 0.35) * float(motion.uniform(0.3, 1.0))
        swing = float(np.sin(2 * np.pi * (stride.phase + stride.pace * frame) * 2))
        return strode(pose, stride, 0), strode(pose, stride, frame), drag * (1 + 0.4 * swing)
    if lots[1] < 0.75:
        other, start, pace = choose_pose(motion, yaw), motion.random() * 0.3, motion.uniform(0.04, 0.2)
        share = [0.5 - 0.5 * float(np.cos(2 * np.pi * (start + pace * k))) for k in (0, frame)]
        return between(pose, other, share[0]), between(pose, other, share[1]), 0.4 * (share[1] - 0.5)
    return pose, pose, 0.0


def _beside(character: Character, yaw: float, together: np.random.Generator, sway: int | None) -> list[Shape]:
    """The shapes of a character's companion, standing to one side of it."""
    other = character.companion
    assert other is not None
    turned = float(together.choice([yaw, -yaw, together.uniform(-0.8, 0.8), together.uniform(-np.pi, np.pi)]))
    first, pose, drag = _moved(choose_pose(together, turned), turned, together, sway or 0)
    chance = np.random.default_rng((other.seed, 2, int(together.integers(2**31))))
    expression = chance if sway is None else np.random.default_rng((other.seed, 7, sway))
    hand = replace(other, pen=character.pen, tinted=character.tinted, cut_out=character.cut_out)
    drawn = compose(Sketch(hand, place_figure(other.build, pose, turned), chance, expression, drag))
    size = float(together.uniform(0.6, 1.15))
    points = np.concatenate([p for s in drawn for p in s.fills])
    side = float(together.choice([-1, 1]))
    # They may overlap by an arm, but not hide each other. A still of frame 0 keeps the distance in a moving shot.
    reach = _extent(other, place_figure(other.build, first, turned)) if sway is not None else points
    room = size * float(np.abs(reach[:, 0]).max()) * 0.8 + float(together.uniform(0.05, 0.25))
    base = float(together.uniform(0.0, 0.06))

    def place(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return p * size + np.array([side * room, base])

    return [replace(moved(shape, place), group=f"2 {shape.group}" if shape.group else "") for shape in drawn]


def _extent(character: Character, figure: Figure) -> NDArray[np.float64]:
    """Points (N, 2) around a figure's bones about as far out as its outline goes."""
    b = character.build
    joints = np.concatenate([np.stack(limb.points) for limb in (*figure.arms, *figure.legs)])
    hands = np.stack([arm.points[2] + unit(arm.end) * 0.1 * b.hand for arm in figure.arms])
    feet = np.stack([leg.points[2] + [x * 0.1 * b.foot, -b.legs * 0.09] for leg in figure.legs for x in (-1, 1)])
    wide = b.head * (0.5 * b.head_width + character.hair.volume)
    high = b.head * (1.03 + character.hair.volume + character.hair.spike * (character.hair.style == "spiky"))
    hat = 0.3 * b.head if character.outfit.hat else 0.0
    head = figure.on_head(np.array([[-wide, 0.0], [wide, 0.0], [0.0, high + hat]]))
    torso = figure.on_torso(np.array([[x * b.shoulder, figure.torso.y[-1]] for x in (-1, 1)]))
    return np.concatenate([joints, hands, feet, head, torso])


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

    sway: number of a frame of one shot: view and camera are those of frame 0; the character has walked, run or gestured
    on since, hair and cloth trail, the face may blink or speak.
    size: width and height of the picture, px. view: one of VIEWS, background: one of BACKGROUNDS, framing: one of
    FRAMINGS; each is drawn by lot where it is None.
    """
    rng = np.random.default_rng((character.seed, 2, pose_seed))
    width, height = size
    lots = rng.random(3)
    view = view or VIEWS[int(np.searchsorted([0.34, 0.58, 0.89], lots[0]))]
    background = background or ("plain", "flat", "busy")[int(np.searchsorted([0.72, 0.86], lots[1]))]
    framing = framing or FRAMINGS[int(np.searchsorted([0.65, 0.87], lots[2]))]
    assert view in VIEWS and framing in FRAMINGS, (view, framing)
    facing = float(rng.choice([-1, 1]))
    yaw = (
        facing
        * {
            "front": rng.uniform(0, 0.16),
            "three-quarter": rng.uniform(0.35, 1.05),
            "side": rng.uniform(1.05, 1.6) if lots[0] % 0.01 < 0.005 else rng.uniform(1.45, 1.65),
            "back": rng.uniform(2.5, np.pi) if rng.random() < 0.65 else rng.uniform(1.9, 2.5),
        }[view]
    )
    pose = choose_pose(rng, yaw)
    motion = np.random.default_rng((character.seed, 6, pose_seed))  # the same in all frames of a shot
    if view == "side" and motion.random() < 0.35:
        # As many draw it: the head in profile on a body turned a little towards us, so that its front is seen.
        yaw = facing * float(motion.uniform(0.75, 1.3))
        pose = replace(pose, head_yaw=facing * float(motion.normal(1.57, 0.1)) - yaw)
    first, pose, drag = _moved(pose, yaw, motion, sway or 0)
    camera = expression = rng
    still: Figure | None = None
    if sway is not None:
        camera = np.random.default_rng((character.seed, 5, pose_seed))
        expression = np.random.default_rng((character.seed, 7, pose_seed, sway))
        moving = np.random.default_rng((character.seed, 4, pose_seed, sway))
        still = place_figure(character.build, first, yaw)
        if sway > 0:
            pose = swayed(pose, moving, float(moving.uniform(0.05, 0.4)))
            yaw += float(moving.normal(0, 0.03))
    figure = place_figure(character.build, pose, yaw)
    sk = Sketch(character, figure, rng, expression, drag)
    shapes = compose(sk)
    if character.companion is not None:
        together = np.random.default_rng((character.seed, 8, pose_seed))
        beside = _beside(character, yaw, together, sway)
        shapes = beside + shapes if together.random() < 0.6 else shapes + beside
    if camera.random() < 0.1:  # a jump, a fall, a tilted camera
        # A framing cut to the head is laid around the head, so the head stays where it is.
        pivot, spread = (figure.hips, 0.25) if framing == "full" else (figure.head_at, 0.12)
        roll = float(camera.normal(0, spread))
        shapes = [moved(shape, lambda points: rotated(points, roll, pivot)) for shape in shapes]

    # The camera of a shot stands still: it is set to the bones of frame 0, not to what moves in each frame.
    if still is not None and character.companion is None:
        points = _extent(character, still)
    else:
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
        aimed = still or figure
        chin = float(aimed.head_at[1])
        close_up = camera.random() < 0.35
        if framing == "upper":
            level = aimed.hips[1] - 0.1 + camera.uniform(-0.1, 0.15)
        elif close_up:
            level = chin - camera.uniform(-0.02, 0.1)
        else:
            level = chin - camera.uniform(0.1, 0.25)
        crown = float(aimed.head_at[1] + character.build.head * (1.15 if not close_up else camera.uniform(0.85, 1.1)))
        reaching = camera.random() < 0.5 and not (close_up and framing == "bust")
        top = max(crown, float(high[1]) if reaching else 0.0)
        scale = height * camera.uniform(0.84, 0.97) / (top - level)
        share = 0.9 if close_up and framing == "bust" else 0.5
        middle = float(aimed.head_at[0] * share + aimed.hips[0] * (1 - share))
        to_picture = (scale, width * camera.uniform(0.42, 0.58) - scale * middle, height + scale * level)

    layers = raster.new_layers(width, height)
    line_px = character.pen.width * raster.SCALE * height / 512
    setting = np.random.default_rng((character.seed, 3, pose_seed))
    paper, paper_ink = paint_background(background, width * raster.SCALE, height * raster.SCALE, line_px, setting)
    raster.draw_shapes(layers, shapes, to_picture, character.pen, character.shading, rng)
    pictures = raster.develop(layers, paper, paper_ink, character.shading, character.pen)
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
