"""Families of characters: the ranges from which the design of one is drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

Range = tuple[float, float]


@dataclass(frozen=True)
class Family:
    """Ranges of one kind of character. Lengths of the body are shares of its height below the chin."""

    heads: Range = (5.0, 7.0)  # standing height in head heights
    head_width: Range = (0.68, 0.82)  # width of the head, share of its height
    head_depth: Range = (0.78, 0.92)
    jaw: Range = (0.7, 0.95)  # width at the jaw, share of the head's
    chin: Range = (0.3, 0.6)
    legs: Range = (0.5, 0.57)  # height of the crotch
    shoulder: Range = (0.13, 0.17)  # half widths
    chest: Range = (0.105, 0.135)
    waist: Range = (0.08, 0.12)
    hip: Range = (0.09, 0.125)
    depth: Range = (0.62, 0.85)  # of the torso, share of its width
    belly: Range = (0.0, 0.02)
    neck_width: Range = (0.035, 0.055)
    neck: Range = (0.05, 0.09)
    arm: Range = (0.028, 0.042)  # half thickness of the upper arm
    leg: Range = (0.042, 0.06)
    arm_length: Range = (0.9, 1.05)
    hand: Range = (0.8, 1.15)  # length of the hand, share of 0.12
    foot: Range = (0.8, 1.2)
    roundness: Range = (0.3, 0.5)  # 0 angular, 0.5 smooth outlines
    eye_size: Range = (0.8, 1.3)
    eyes: tuple[str, ...] = ("almond", "almond", "oval", "dot", "line")
    nose: Range = (0.6, 1.3)
    uppers: tuple[str, ...] = ("uniform", "robe",
        "suit", "suit", "suit", "open jacket", "open jacket", "coat", "t-shirt", "t-shirt", "sweater", "hoodie",
        "shirt", "shirt", "dress", "tank", "armor", "bare",
    )  # fmt: skip
    beards: float = 0.45  # chance
    fantasy: float = 0.08  # chance of colors no person has
    animal: float = 0.015  # chance of fur, a muzzle and a tail
    machine: float = 0.01  # chance of a body of metal pieces


ADULT: Final = Family()
FAMILIES: Final[dict[str, Family]] = {
    "adult": ADULT,
    "puppet": replace(
        ADULT, heads=(3.6, 5.4), head_width=(0.6, 0.8), hand=(1.0, 1.5), roundness=(0.05, 0.35), legs=(0.4, 0.52),
        shoulder=(0.15, 0.2), chest=(0.12, 0.16), waist=(0.1, 0.15), hip=(0.1, 0.15), jaw=(0.7, 1.0),
        arm=(0.026, 0.044), leg=(0.045, 0.065),
    ),
    "fashion": replace(
        ADULT, heads=(7.0, 8.6), legs=(0.55, 0.63), waist=(0.06, 0.085), arm=(0.02, 0.03), leg=(0.032, 0.045),
        neck=(0.05, 0.09), neck_width=(0.026, 0.036), shoulder=(0.1, 0.14), chest=(0.08, 0.11), hip=(0.08, 0.11),
        hand=(0.75, 1.0), beards=0.1, chin=(0.2, 0.4),
    ),
    "chibi": replace(
        ADULT, heads=(2.1, 3.2), head_width=(0.85, 1.12), legs=(0.32, 0.45), shoulder=(0.17, 0.24), chest=(0.16, 0.22),
        waist=(0.15, 0.22), hip=(0.16, 0.24), neck=(0.0, 0.06), neck_width=(0.05, 0.08), arm=(0.045, 0.075),
        leg=(0.06, 0.1), hand=(1.0, 1.6), foot=(1.0, 1.6), eye_size=(1.6, 2.6), eyes=("anime", "anime", "dot", "oval"),
        nose=(0.2, 0.6), jaw=(0.8, 0.98), chin=(0.2, 0.5), beards=0.06, fantasy=0.2, roundness=(0.4, 0.55),
        head_depth=(0.85, 1.0),
    ),
    "child": replace(
        ADULT, heads=(3.6, 5.0), head_width=(0.78, 0.95), legs=(0.42, 0.5), shoulder=(0.13, 0.17), waist=(0.11, 0.15),
        hip=(0.11, 0.14), eye_size=(1.2, 2.0), eyes=("anime", "oval", "dot", "almond"), nose=(0.3, 0.7), beards=0.0,
        uppers=("t-shirt", "t-shirt", "sweater", "hoodie", "hoodie", "shirt", "dress", "tank", "open jacket", "coat"),
    ),
    "round": replace(
        ADULT, heads=(3.0, 5.0), head_width=(0.85, 1.1), jaw=(0.95, 1.15), chin=(0.5, 0.8), shoulder=(0.15, 0.2),
        chest=(0.16, 0.21), waist=(0.19, 0.28), hip=(0.17, 0.24), depth=(0.75, 0.92), belly=(0.02, 0.06),
        arm=(0.04, 0.065), leg=(0.08, 0.12), neck=(0.0, 0.04), neck_width=(0.06, 0.09), roundness=(0.45, 0.55),
        eyes=("dot", "oval", "almond", "line"), hand=(0.9, 1.3), legs=(0.36, 0.46), beards=0.35,
    ),
    "anime": replace(
        ADULT, heads=(5.2, 7.2), head_width=(0.76, 0.9), chin=(0.12, 0.3), jaw=(0.66, 0.84), legs=(0.52, 0.6),
        waist=(0.07, 0.095), arm=(0.022, 0.034), leg=(0.036, 0.05), neck_width=(0.025, 0.04),
        eye_size=(1.3, 2.1), eyes=("anime", "anime", "almond"), nose=(0.2, 0.6), beards=0.05, fantasy=0.25,
        shoulder=(0.11, 0.15), chest=(0.09, 0.12), hip=(0.09, 0.12), hand=(0.75, 1.05),
    ),
    "hero": replace(
        ADULT, heads=(5.5, 8.0), shoulder=(0.19, 0.26), chest=(0.15, 0.2), waist=(0.09, 0.13), hip=(0.09, 0.12),
        arm=(0.045, 0.07), leg=(0.055, 0.08), neck_width=(0.05, 0.08), jaw=(0.85, 1.1), chin=(0.5, 0.8),
        roundness=(0.1, 0.4), hand=(1.0, 1.4),
        uppers=("tank", "armor", "armor", "bare", "t-shirt", "suit", "open jacket", "coat", "sweater"), fantasy=0.2,
    ),
    "mascot": replace(
        ADULT, heads=(2.0, 4.2), head_width=(0.85, 1.25), jaw=(0.85, 1.15), legs=(0.28, 0.48), shoulder=(0.15, 0.22),
        chest=(0.15, 0.22), waist=(0.15, 0.26), hip=(0.16, 0.24), depth=(0.75, 0.95), belly=(0.0, 0.05),
        neck=(0.0, 0.05), neck_width=(0.05, 0.08), arm=(0.035, 0.075), leg=(0.05, 0.1), hand=(0.9, 1.5),
        foot=(0.9, 1.7), eye_size=(1.0, 2.2), eyes=("anime", "oval", "oval", "dot"), nose=(0.1, 0.4), beards=0.05,
        roundness=(0.35, 0.55), animal=0.85, machine=0.1, fantasy=0.4,
        uppers=("bare", "bare", "bare", "t-shirt", "open jacket", "hoodie", "uniform", "dress", "sweater"),
    ),
    "robot": replace(
        ADULT, heads=(3.0, 7.5), head_width=(0.7, 1.15), jaw=(0.85, 1.1), chin=(0.5, 0.95), roundness=(0.0, 0.3),
        shoulder=(0.13, 0.25), chest=(0.11, 0.2), waist=(0.06, 0.16), hip=(0.09, 0.16), arm=(0.02, 0.06),
        leg=(0.03, 0.09), neck_width=(0.02, 0.05), eyes=("oval", "dot", "almond"), nose=(0.0, 0.2), beards=0.0,
        machine=0.9, fantasy=0.6, uppers=("bare", "bare", "armor", "armor", "tank", "open jacket", "coat"),
    ),
}  # fmt: skip

# Drawn for measuring only: a net that colors these has learned parts, not these families.
VALIDATION_FAMILIES: Final[dict[str, Family]] = {
    "blocky": replace(
        ADULT, heads=(3.0, 4.6), head_width=(0.85, 1.2), jaw=(0.98, 1.12), chin=(0.85, 1.0), roundness=(0.0, 0.08),
        shoulder=(0.2, 0.26), chest=(0.19, 0.24), waist=(0.17, 0.22), hip=(0.16, 0.21), legs=(0.36, 0.44),
        arm=(0.05, 0.07), leg=(0.065, 0.09), neck=(0.01, 0.05), hand=(1.1, 1.5), eyes=("line", "square"),
        uppers=("overalls", "overalls", "vest", "suit", "poncho"),
    ),
    "noodle": replace(
        ADULT, heads=(3.4, 5.2), head_width=(0.62, 0.95), legs=(0.5, 0.64), shoulder=(0.09, 0.12), chest=(0.08, 0.11),
        waist=(0.07, 0.12), hip=(0.08, 0.12), arm=(0.013, 0.02), leg=(0.018, 0.028), neck_width=(0.018, 0.026),
        neck=(0.08, 0.14), arm_length=(1.1, 1.35), foot=(1.2, 1.7), hand=(0.9, 1.3), roundness=(0.45, 0.55),
        eyes=("goggle", "dot"), uppers=("vest", "poncho", "overalls", "dress", "coat"),
    ),
}  # fmt: skip
