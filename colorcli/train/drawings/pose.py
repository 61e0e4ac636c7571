"""Poses: where the joints of a character are, as seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from colorcli.train.drawings.character import Build
from colorcli.train.drawings.curves import Points, rotated
from colorcli.train.drawings.lathe import Lathe

Vector = tuple[float, float, float]  # outwards from the body, up, forward


@dataclass(frozen=True)
class Pose:
    """Directions of the bones, in the body's own axes; one of each pair for the left and the right limb."""

    name: str
    upper_arms: tuple[Vector, Vector]
    forearms: tuple[Vector, Vector]
    thighs: tuple[Vector, Vector]
    shins: tuple[Vector, Vector]
    hands: tuple[str, str]  # "relaxed" | "open" | "fist" | "point"
    lean: tuple[float, float] = (0.0, 0.0)  # radians sideways and forward
    head_roll: float = 0.0
    head_yaw: float = 0.0
    drop: float = 0.0  # how far the hips sink when seated, share of the leg


_DOWN: Vector = (0.06, -1.0, 0.0)
ARMS: dict[str, tuple[tuple[Vector, Vector], str]] = {
    "down": (((0.16, -1, 0), (0.1, -1, 0.1)), "relaxed"),
    "away": (((0.45, -1, 0), (0.35, -1, 0.1)), "open"),
    "wide": (((1, -0.7, 0.1), (1, -0.1, 0.2)), "open"),
    "level": (((1, -0.05, 0), (1, 0.0, 0)), "open"),
    "front": (((0.15, -1, 0.15), (-0.45, -0.55, 0.6)), "relaxed"),
    "folded": (((0.25, -1, 0.25), (-1, 0.05, 0.5)), "fist"),
    "hip": (((0.75, -0.8, -0.2), (-0.65, -0.75, 0.25)), "fist"),
    "wave": (((0.8, -0.35, 0.1), (0.35, 1, 0.15)), "open"),
    "raised": (((0.6, 0.75, 0), (0.1, 1, 0.1)), "open"),
    "explain": (((0.2, -0.9, 0.25), (0.25, 0.15, 0.9)), "open"),
    "point": (((0.25, -0.3, 0.9), (0.1, 0.05, 1)), "point"),
    "chin": (((0.2, -1, 0.3), (-0.35, 0.9, 0.35)), "fist"),
    "back": (((0.3, -1, -0.35), (-0.5, -0.7, -0.4)), "relaxed"),
    "swing": (((0.12, -0.9, 0.45), (0.05, -0.7, 0.7)), "fist"),
    "swing back": (((0.12, -0.9, -0.45), (0.05, -1, -0.1)), "fist"),
}
LEGS: dict[str, tuple[tuple[Vector, Vector], tuple[Vector, Vector]]] = {
    "stand": ((_DOWN, _DOWN), (_DOWN, _DOWN)),
    "apart": (((0.25, -1, 0), (0.25, -1, 0)), ((0.15, -1, 0), (0.15, -1, 0))),
    "walk": (((0.05, -1, 0.4), (0.05, -1, -0.3)), ((0.02, -1, 0.15), (0.02, -1, -0.6))),
    "run": (((0.05, -0.7, 0.75), (0.05, -1, -0.35)), ((0.02, -1, -0.2), (0.02, -0.5, -1))),
    "contrapposto": (((0.02, -1, 0.02), (0.22, -1, 0.1)), ((0.04, -1, -0.02), (0.2, -1, -0.1))),
    "jump": (((0.3, -0.8, 0.5), (0.15, -1, -0.1)), ((0.1, -0.8, -0.7), (0.1, -0.9, -0.5))),
    "lunge": (((0.35, -0.8, 0.45), (0.35, -1, -0.3)), ((0.05, -1, 0.0), (0.3, -1, -0.3))),
    "kneel": (((0.1, -0.35, 0.95), (0.1, -1, 0.1)), ((0.05, -1, 0.0), (0.08, -0.25, -0.95))),
    "sit": (((0.18, -0.25, 1), (0.18, -0.25, 1)), ((0.03, -1, 0.05), (0.03, -1, 0.05))),
}


def _jittered(vector: Vector, rng: np.random.Generator, spread: float) -> Vector:
    v = np.array(vector) + rng.normal(0, spread, 3)
    v /= np.linalg.norm(v)
    return (float(v[0]), float(v[1]), float(v[2]))


@dataclass(frozen=True)
class Stride:
    """How a character walks or runs."""

    phase: float  # of the left leg at frame 0, in cycles
    pace: float  # cycles from frame to frame
    thigh: float  # farthest swing of the thighs, radians
    knee: float  # farthest bend of the knees, radians
    arm: float  # farthest swing of the upper arms, radians; 0 = they keep their own pose
    elbow: float  # bend of the elbows, radians
    lean: float  # forward, radians


def choose_stride(rng: np.random.Generator, running: bool) -> Stride:
    """A way to walk or run."""
    if running:
        thigh, knee, arm, elbow = rng.uniform(0.7, 1.1), rng.uniform(1.2, 2.0), rng.uniform(0.6, 1.2), 1.4
        return Stride(rng.random(), rng.uniform(0.1, 0.3), thigh, knee, arm, elbow, rng.uniform(0.05, 0.3))
    own_arms = rng.random() < 0.25
    return Stride(
        rng.random(),
        rng.uniform(0.06, 0.3),
        rng.uniform(0.25, 0.6),
        rng.uniform(0.4, 1.1),
        0.0 if own_arms else rng.uniform(0.2, 0.8),
        rng.uniform(0.1, 0.7),
        rng.uniform(-0.02, 0.1),
    )


def strode(pose: Pose, stride: Stride, frame: float) -> Pose:
    """The pose at a frame of a walk or run: limbs pass each other, and the knee bends as its leg comes forward."""
    turn = 2 * np.pi * (stride.phase + stride.pace * frame)

    def forward(out: float, angle: float) -> Vector:
        return (out, float(-np.cos(angle)), float(np.sin(angle)))

    thighs, shins, uppers, forearms = [], [], list(pose.upper_arms), list(pose.forearms)
    for k, shift in enumerate((0.0, np.pi)):
        swing, coming = np.sin(turn + shift), np.cos(turn + shift)
        thigh = stride.thigh * (swing + 0.15)
        bend = stride.knee * max(coming, 0.0) ** 1.3 + 0.25 * stride.knee * max(-swing, 0.0) + 0.04
        thighs.append(forward(pose.thighs[k][0] * 0.3, thigh))
        shins.append(forward(pose.shins[k][0] * 0.3, thigh - bend))
        if stride.arm:
            arm = -stride.arm * swing
            uppers[k] = forward(0.14, arm)
            forearms[k] = forward(0.05, arm + stride.elbow * (1 + 0.3 * np.sign(arm)))
    return replace(
        pose,
        thighs=(thighs[0], thighs[1]),
        shins=(shins[0], shins[1]),
        upper_arms=(uppers[0], uppers[1]),
        forearms=(forearms[0], forearms[1]),
        lean=(pose.lean[0], stride.lean + 0.03 * float(np.cos(2 * turn))),
        head_roll=pose.head_roll * 0.5 + 0.03 * float(np.sin(2 * turn)),
    )


def between(first: Pose, second: Pose, share: float) -> Pose:
    """The arms and head on the way from one pose to another; the legs are the first one's."""

    def bone(a: Vector, b: Vector) -> Vector:
        v = np.array(a) / np.linalg.norm(a) * (1 - share) + np.array(b) / np.linalg.norm(b) * share
        v = v + np.array([0.25, 0.0, 0.25]) * share * (1 - share)  # a swing, not a push through the body
        v = v / max(float(np.linalg.norm(v)), 1e-6)
        return (float(v[0]), float(v[1]), float(v[2]))

    def both(a: tuple[Vector, Vector], b: tuple[Vector, Vector]) -> tuple[Vector, Vector]:
        return bone(a[0], b[0]), bone(a[1], b[1])

    return replace(
        first,
        upper_arms=both(first.upper_arms, second.upper_arms),
        forearms=both(first.forearms, second.forearms),
        hands=first.hands if share < 0.5 else second.hands,
        head_roll=first.head_roll * (1 - share) + second.head_roll * share,
        head_yaw=first.head_yaw * (1 - share) + second.head_yaw * share,
        lean=(
            first.lean[0] * (1 - share) + second.lean[0] * share,
            first.lean[1] * (1 - share) + second.lean[1] * share,
        ),
    )


def choose_pose(rng: np.random.Generator, yaw: float) -> Pose:
    """Any pose, the likelier the more often it is drawn."""
    names = tuple(ARMS)
    legs = str(rng.choice(tuple(LEGS), p=(0.33, 0.19, 0.17, 0.07, 0.12, 0.02, 0.03, 0.02, 0.05)))
    if legs in ("walk", "run") and rng.random() < 0.6:
        left, right = ("swing back", "swing") if rng.random() < 0.7 else ("swing back", str(rng.choice(names)))
    elif rng.random() < 0.55:
        left = right = str(
            rng.choice(("down", "down", "away", "away", "wide", "front", "folded", "hip", "raised", "level", "back"))
        )
    else:
        left, right = str(rng.choice(names)), str(rng.choice(("down", "away", *names)))
    thighs, shins = LEGS[legs]
    hands = tuple(
        ARMS[k][1] if rng.random() < 0.6 else str(rng.choice(("relaxed", "open", "fist", "point")))
        for k in (left, right)
    )
    return Pose(
        f"{legs}, {left}, {right}",
        (_jittered(ARMS[left][0][0], rng, 0.1), _jittered(ARMS[right][0][0], rng, 0.1)),
        (_jittered(ARMS[left][0][1], rng, 0.14), _jittered(ARMS[right][0][1], rng, 0.14)),
        (_jittered(thighs[0], rng, 0.04), _jittered(thighs[1], rng, 0.04)),
        (_jittered(shins[0], rng, 0.04), _jittered(shins[1], rng, 0.04)),
        (hands[0], hands[1]),
        (float(rng.normal(0, 0.05)), float(rng.normal(0.02, 0.05))),
        float(rng.normal(0, 0.09)),
        float(rng.normal(0, 0.2)),
        1.0 if legs == "sit" else 0.0,
    )


def swayed(pose: Pose, rng: np.random.Generator, far: float) -> Pose:
    """The pose a few frames later: limbs turned by about `far` (1 is half a stride), the rest by less."""

    def turned(bones: tuple[Vector, Vector], amount: float) -> tuple[Vector, Vector]:
        return _jittered(bones[0], rng, far * amount), _jittered(bones[1], rng, far * amount)

    return replace(
        pose,
        upper_arms=turned(pose.upper_arms, 0.35),
        forearms=turned(pose.forearms, 0.35),
        thighs=turned(pose.thighs, 0.3),
        shins=turned(pose.shins, 0.3),
        lean=(pose.lean[0] + far * float(rng.normal(0, 0.03)), pose.lean[1] + far * float(rng.normal(0, 0.03))),
        head_roll=pose.head_roll + far * float(rng.normal(0, 0.05)),
        head_yaw=pose.head_yaw + far * float(rng.normal(0, 0.1)),
    )


@dataclass(frozen=True)
class Limb:
    """Joints of an arm or leg as seen, (2,) each, and how near they are."""

    points: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    near: tuple[float, float, float]  # towards us, standing heights from the body's axis
    end: NDArray[np.float64]  # direction of hand or foot as seen, its length telling the foreshortening
    side: int  # 1 the character's left, -1 its right


@dataclass(frozen=True)
class Figure:
    """A character in a pose, seen from a side."""

    yaw: float  # 0 front, pi/2 to the right of the picture, pi back
    torso: Lathe
    skull: Lathe  # in its own axes: chin at 0, heights in standing heights
    head_yaw: float
    head_at: NDArray[np.float64]  # where the chin is
    head_roll: float
    hips: NDArray[np.float64]  # the torso turns about this
    lean: float
    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]
    pose: Pose

    def on_torso(self, points: Points) -> Points:
        """From the torso's upright axes to the picture's."""
        return rotated(points, self.lean, self.hips)

    def on_head(self, points: Points) -> Points:
        """From the skull's own axes to the picture's."""
        return rotated(points, self.head_roll) + self.head_at


def torso_of(build: Build) -> Lathe:
    """The bare torso, from the crotch to the base of the neck."""
    b = build
    crotch, top = b.legs, 1 - b.head - b.neck
    length = top - crotch
    depth = b.depth
    return Lathe.through(
        [
            (crotch, b.hip * 0.9, b.hip * depth * 0.9, 0),
            (crotch + 0.16 * length, b.hip, b.hip * depth + b.belly * 0.3, b.belly * 0.2),
            (crotch + 0.42 * length, b.waist, b.waist * depth + b.belly * 0.5, b.belly * 0.6),
            (crotch + 0.70 * length, b.chest, b.chest * depth + b.bust * 0.5, b.bust * 0.5),
            (crotch + 0.86 * length, (b.chest + b.shoulder) / 2, b.chest * depth * 0.9, 0),
            (crotch + 0.95 * length, b.shoulder * 0.96, b.chest * depth * 0.72, 0),
            (crotch + 0.99 * length, b.shoulder * 0.78, b.chest * depth * 0.55, 0),
            (top + 0.04 * length, max(b.neck_width * 1.25, b.shoulder * 0.34), b.neck_width * 1.3, 0),
            (top + 0.07 * length, b.neck_width * 1.05, b.neck_width * 1.05, 0),
        ],
        roundness=b.roundness,
    )


def skull_of(build: Build) -> Lathe:
    """The head without ears and hair; the chin at height 0."""
    b = build
    w, d = b.head_width / 2, b.head_depth / 2
    slices = np.array(
        [
            (0.0, w * b.chin * 0.72, d * 0.3, d * 0.55),
            (0.035, w * b.chin, d * 0.42, d * 0.45),
            (0.16, w * b.jaw * 0.86, d * 0.7, d * 0.2),
            (0.3, w * (0.4 * b.jaw + 0.57), d * 0.82, d * 0.08),
            (0.48, w * 0.99, d * 0.95, d * 0.0),
            (0.64, w, d, -d * 0.02),
            (0.8, w * 0.93, d * 0.95, -d * 0.03),
            (0.92, w * 0.68, d * 0.7, -d * 0.03),
            (0.985, w * 0.3, d * 0.34, -d * 0.03),
            (1.0, w * 0.08, d * 0.08, -d * 0.03),
        ]
    )
    return Lathe.through(slices * b.head, roundness=b.roundness)


def place_figure(build: Build, pose: Pose, yaw: float) -> Figure:
    """Put a build into a pose and look at it with the body turned by yaw radians (0 front, pi/2 facing right)."""
    b = build
    torso = torso_of(b)
    c, s = np.cos(yaw), np.sin(yaw)

    def seen(x: float, y: float, z: float) -> NDArray[np.float64]:
        return np.array([x * c + z * s, y, -x * s + z * c])

    crotch, top = b.legs, 1 - b.head - b.neck
    length = top - crotch
    hips = np.array([0.0, crotch + 0.1 * length])
    lean = -pose.lean[0] * c - pose.lean[1] * s

    def bones(root: tuple[float, float, float], side: int, first: Vector, second: Vector, l1: float, l2: float) -> Limb:
        joints = [seen(*root)]
        for (out, up, forward), size in ((first, l1), (second, l2)):
            joints.append(joints[-1] + size * seen(side * out, up, forward))
        out, up, forward = second
        ahead = seen(side * out, up, forward)
        p = [j[:2] for j in joints]
        return Limb(
            (p[0], p[1], p[2]), (float(joints[0][2]), float(joints[1][2]), float(joints[2][2])), ahead[:2], side
        )

    reach = (0.36 * (1 - b.head) * b.arm_length) * (0.5 + 0.5 * length / (0.4 * (1 - b.head)))
    arms, legs = [], []
    for k, side in enumerate((1, -1)):
        root = (side * (b.shoulder - b.arm * 0.45), crotch + 0.975 * length - b.arm * 1.3, 0.0)
        arm = bones(root, side, pose.upper_arms[k], pose.forearms[k], reach * 0.5, reach * 0.45)
        turned = rotated(np.stack([*arm.points, arm.points[2] + arm.end]), lean, hips)
        arms.append(Limb((turned[0], turned[1], turned[2]), arm.near, turned[3] - turned[2], side))
        ankle = b.legs * 0.09
        half = (crotch + 0.06 * length - ankle) / 2
        root = (side * b.hip * 0.52, crotch + 0.06 * length, 0.0)
        legs.append(bones(root, side, pose.thighs[k], pose.shins[k], half, half))
    # The figure stands on its lower foot.
    lowest = min(leg.points[2][1] for leg in legs) - b.legs * 0.09
    down = np.array([0.0, -lowest])
    head_yaw = yaw + pose.head_yaw
    tilt = lean * 0.5 - pose.head_roll
    neck = rotated(np.array([[0.0, top + b.neck * 0.85 + 0.04 * length]]), lean, hips)[0]
    forward = 0.1 * b.head * s + b.neck * 0.25 * s

    def stood(limb: Limb) -> Limb:
        a, m, z = limb.points
        return replace(limb, points=(a + down, m + down, z + down))

    shifted = Lathe(torso.y + down[1], torso.width, torso.depth, torso.center)
    return Figure(
        yaw,
        shifted,
        skull_of(b),
        head_yaw,
        neck + down + np.array([forward * 0.3, -0.04 * b.head]),
        tilt,
        hips + down,
        lean,
        (stood(arms[0]), stood(arms[1])),
        (stood(legs[0]), stood(legs[1])),
        pose,
    )
