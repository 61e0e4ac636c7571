"""Drawings of made-up animation characters, with everything known of each pixel: what the small models learn from."""

from colorcli.train.drawings.background import BACKGROUNDS
from colorcli.train.drawings.character import Character, design_character
from colorcli.train.drawings.drawing import FRAMINGS, VIEWS, Drawing, draw
from colorcli.train.drawings.families import FAMILIES, VALIDATION_FAMILIES
from colorcli.train.drawings.parts import PARTS, TAGS

__all__ = [
    "BACKGROUNDS",
    "FAMILIES",
    "FRAMINGS",
    "PARTS",
    "TAGS",
    "VALIDATION_FAMILIES",
    "VIEWS",
    "Character",
    "Drawing",
    "design_character",
    "draw",
]
