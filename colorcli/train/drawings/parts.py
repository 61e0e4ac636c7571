"""The names of what a generated drawing is made of: parts (one of each pixel) and tags (of a whole drawing)."""

from __future__ import annotations

from typing import Final

# The order is the label of a trained network: new names are appended, none is moved.
PARTS: Final = (
    "background", "hair", "face", "neck", "ear", "eye_white", "iris", "brow", "mouth", "beard", "hand", "arm",
    "torso_skin", "leg", "top", "jacket", "shirt", "tie", "dress", "trousers", "skirt", "belt", "shoe", "sock", "hat",
    "glasses", "cape", "scarf", "apron", "glove", "armor", "prop", "ornament",
)  # fmt: skip
PART: Final = {name: index for index, name in enumerate(PARTS)}

TAGS: Final = (
    "front view", "three-quarter view", "side view", "back view", "full body", "upper body", "head and shoulders",
    "short hair", "long hair", "tied hair", "spiky hair", "bald", "fringe", "beard", "glasses", "hat",
    "suit", "tie", "open jacket", "closed coat", "t-shirt", "sweater", "buttoned shirt", "dress", "skirt", "trousers",
    "shorts", "cape", "scarf", "apron", "armor", "gloves", "boots", "belt", "prop", "shaded", "busy background",
)  # fmt: skip
TAG: Final = {name: index for index, name in enumerate(TAGS)}
