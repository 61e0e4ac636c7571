"""An engine without a model, to try a set-up with: `--engine stand-in` on a farm, in a test, under load.

Each closed region of a frame gets the color of that region of the key which lies most alike in the character and is
about as large. That is quick, needs neither weights nor torch, and is the same on every machine. It goes through every
other part as a model does: frames are read, prepared, finished, recorded. Its frames count as its own and never as a
model's, so whoever leaves `--engine stand-in` out later gets every one of them colored again.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorcli.model.evidence import Evidence
from colorcli.prepare.canvas import Canvas
from colorcli.prepare.frame import PreparedFrame
from colorcli.prepare.key import PreparedKey
from colorcli.prepare.palette import nearest_color
from colorcli.prepare.regions import Labels, Regions, closed_regions, nearest_labelled, pixels_of_regions
from colorcli.presets import Preset
from colorcli.shot.manifest import ModelEntry
from colorcli.variants import VARIANTS, Variant

Float = NDArray[np.float32]
Places = NDArray[np.float64]  # (N, 3) of N regions: x and y in the box around all of them, root of the share; 0..1

STAND_IN = "stand-in"  # what is typed for --engine, and what the manifest calls the model
VERSION = "1"          # part of its frames' fingerprints: raise it when it colors otherwise
LARGEST_TABLE = 1_000_000  # distances that are held at once: a scan full of dust has ten thousands of regions
FAINT = 1e-3           # what speaks for every color of the key
NEAR = 0.1             # two regions of frames that follow each other are one if their places differ by less


@dataclass(frozen=True)
class KeyColors:
    """A key as the stand-in has read it."""

    colors: Float   # (K, 3) of its regions, 0..1
    places: Places  # (K, 3)


@dataclass(frozen=True)
class Ballot:
    """What a drawing says on its own colors, and on those of the drawings around it."""

    places: Places             # (N, 3)
    choice: NDArray[np.int64]  # (N,) the region of the key whose color each region has


class StandIn:
    """Colors frames without a model. A `Colorizer`; any thread may use it."""

    def encode_reference(self, key: PreparedKey, preset: Preset) -> KeyColors:
        """Find the regions of the key and their colors; a key without lines is one region of its main color."""
        regions = closed_regions(key.ink_canvas, key.mask_canvas)
        palette = key.palette.colors
        if not regions.count:
            return KeyColors(palette[:1], np.array([[0.5, 0.5, 1.0]]))
        pixels = key.color_canvas.reshape(-1, 3)
        medians = np.array([np.median(pixels[where], axis=0) for where in pixels_of_regions(regions)], np.float32)
        return KeyColors(palette[nearest_color(medians, palette)], _places(regions))

    def color(
        self, frames: Sequence[PreparedFrame], reference: KeyColors, preset: Preset, decided: Sequence[Ballot] = ()
    ) -> list[Float]:
        """Give a layer (h, w, 3) in 0..1 for each frame, in the colors of what was decided, if anything was."""
        ballots = decided or [self.ballot(frame, reference, preset) for frame in frames]
        return [
            _painted(frame, _regions(frame), reference.colors[ballot.choice])
            for frame, ballot in zip(frames, ballots, strict=True)
        ]

    def ballot(self, frame: PreparedFrame, reference: KeyColors, preset: Preset) -> Ballot:
        """Tell where a frame's regions lie, and which colors it would give them."""
        return _ballot(_regions(frame), reference)

    def color_and_tell(
        self, frames: Sequence[PreparedFrame], reference: KeyColors, preset: Preset
    ) -> tuple[list[Float], list[Ballot]]:
        """The same, with the ballot that each frame was colored by."""
        ballots = [self.ballot(frame, reference, preset) for frame in frames]
        return self.color(frames, reference, preset, ballots), ballots

    def link(self, one: Ballot, other: Ballot) -> None:
        """Tell nothing: regions are found by where they lie once a vote is counted."""

    def decide(self, ballots: Sequence[Ballot | None], own: int, links: Mapping[tuple[int, int], Any]) -> Ballot:
        """Give each region of a drawing the color that most drawings give it."""
        mine = ballots[own]
        assert mine is not None, "what has no say is not asked"
        others = [ballot for place, ballot in enumerate(ballots) if ballot is not None and place != own]
        return replace(mine, choice=_voted(mine, others))

    def evidence(self, frame: PreparedFrame, decided: Ballot, reference: KeyColors) -> Evidence | None:
        """Tell how near each region lies to those of the key that have each color."""
        colors, number = np.unique(reference.colors, axis=0, return_inverse=True)
        shares = np.zeros((len(decided.places), len(colors)))
        for color, place in zip(number.reshape(-1), reference.places, strict=True):
            near = np.exp(-0.5 * ((decided.places - place) ** 2).sum(axis=1) / NEAR**2)
            shares[:, color] = np.maximum(shares[:, color], near)
        shares += FAINT
        likeness = np.log(shares.max(axis=1)).astype(np.float32)
        shares /= shares.sum(axis=1, keepdims=True)
        labels = _on_picture(_regions(frame).labels, frame.canvas)
        return Evidence(labels, shares.astype(np.float32), likeness, colors)

    def color_next(
        self, frame: PreparedFrame, before: Ballot | None, reference: KeyColors, preset: Preset
    ) -> tuple[Float, Ballot]:
        """Color a frame whose regions keep the colors of those that lay in their place in the frame before."""
        regions = _regions(frame)
        own = _ballot(regions, reference)
        if before is not None and len(before.choice) and regions.count:
            nearest, distance = _nearest(own.places, before.places)
            own = Ballot(own.places, np.where(distance < NEAR, before.choice[nearest], own.choice))
        return _painted(frame, regions, reference.colors[own.choice]), own

    def describe(self) -> Mapping[str, Any]:
        """What is used, for the manifest."""
        return {"device": "cpu", "attention": "none", "engine": STAND_IN, "memory": "full"}


def stand_in_variant(model: str) -> Variant:
    """The canvas on which it colors for a model: that of the model where its name says which, else that of mini.

    Nothing is looked up on this machine: another one, with other weights installed, has to give the same picture.
    """
    return VARIANTS.get(model, VARIANTS["mini"])


def stand_in_entry(model: str) -> ModelEntry:
    """How the manifest names it, in the place of a preset's model."""
    identity = f"colorcli {STAND_IN} {VERSION}, canvas of {stand_in_variant(model).name}"
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return ModelEntry(name=STAND_IN, sha256=digest, license="Apache-2.0", license_from="name")


def _regions(frame: PreparedFrame) -> Regions:
    return closed_regions(frame.ink_canvas, frame.mask_canvas)


def _ballot(regions: Regions, reference: KeyColors) -> Ballot:
    places = _places(regions)
    choice, _ = _nearest(places, reference.places)
    return Ballot(places, choice)


def _places(regions: Regions) -> Places:
    """Where each region lies in the box around all of them, and the root of its share of their area."""
    if not regions.count:
        return np.zeros((0, 3))
    rows, columns = np.nonzero(regions.labels)
    numbers = regions.labels[rows, columns]
    # Sums of whole numbers: the order in which they are added cannot matter.
    areas = regions.areas[1:]
    axes = []
    for axis in (columns, rows):
        middles = np.bincount(numbers, weights=axis, minlength=regions.count + 1)[1:] / areas
        axes.append((middles - axis.min()) / max(np.ptp(axis), 1))
    return np.stack([*axes, np.sqrt(areas / areas.sum())], axis=1)


def _nearest(places: Places, others: Places) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The nearest of the others (M, 3) to each place (N, 3), the first of equal ones, and how far it is."""
    nearest, distance = np.zeros(len(places), np.int64), np.zeros(len(places))
    rows = max(LARGEST_TABLE // len(others), 1)
    for first in range(0, len(places), rows):
        part = np.s_[first : first + rows]
        squares = ((places[part, None] - others[None]) ** 2).sum(-1)  # (rows, M)
        nearest[part] = squares.argmin(axis=1)
        distance[part] = np.sqrt(squares.min(axis=1))
    return nearest, distance


def _voted(own: Ballot, heard: Sequence[Ballot]) -> NDArray[np.int64]:
    """The choice of most drawings for each region of one; its own where they are equal."""
    everyone = np.arange(len(own.choice))
    if not heard or not len(everyone):
        return own.choice
    most = max(int(ballot.choice.max(initial=0)) for ballot in (own, *heard))
    votes = np.zeros((len(own.choice), most + 1), np.int64)
    votes[everyone, own.choice] = 3
    for other in heard:
        if len(other.choice) and len(everyone):
            nearest, _ = _nearest(own.places, other.places)
            votes[everyone, other.choice[nearest]] += 2
    return votes.argmax(axis=1)


def _on_picture(labels: Labels, canvas: Canvas) -> Labels:
    """Bring the regions of a canvas (h, w) to the size of the drawing, (H, W); 0 where the canvas saw nothing."""
    (left, top, width, height), (to_left, to_top, to_width, to_height) = canvas.crop, canvas.window
    columns, rows = (np.arange(side) for side in canvas.source)
    x = ((columns + 0.5 - left) * to_width / width).astype(np.int64)
    y = ((rows + 0.5 - top) * to_height / height).astype(np.int64)
    seen_x, seen_y = (columns >= left) & (x < to_width), (rows >= top) & (y < to_height)
    found = np.zeros((len(rows), len(columns)), np.int32)
    found[np.ix_(seen_y, seen_x)] = labels[np.ix_(y[seen_y] + to_top, x[seen_x] + to_left)]
    return found


def _painted(frame: PreparedFrame, regions: Regions, colors: Float) -> Float:
    """The canvas with each region in its color (N, 3), on under the lines around it; white outside the character."""
    layer = np.ones((*frame.ink_canvas.shape, 3), np.float32)
    if regions.count:
        filled = colors[regions.labels.reshape(-1)[nearest_labelled(regions.labels)] - 1]
        inside = frame.mask_canvas > 0.5
        layer[inside] = filled[inside]
    return layer
