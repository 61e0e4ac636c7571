"""Closed regions of paper between the lines of a drawing."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Labels = NDArray[np.int32]

PAPER_BELOW = 0.15     # ink above this parts two regions
SLIVER_BELOW = 0.4     # between two strokes closer than this lets bare paper show, ink below this is still a region
SPECK_PX = 6           # smaller regions are holes where strokes cross; they take a neighbor's color
GAP_SHARES = (0.25, 0.4, 0.67, 1.0)  # of the widest gap: a small gap is found before the room behind it is too narrow
ROOM = 1.5             # beside a gap it is at least this many times as wide as in it, on both sides
SMALLEST_ROOM_PX = 40  # and there is at least this much room


@dataclass(frozen=True)
class Regions:
    """The closed regions of one drawing."""

    labels: Labels            # (H, W) 1..count inside a region, 0 on lines and outside the mask
    depth: Float              # (H, W) distance to the nearest line or border of the mask, in pixels; 0 on lines
    areas: NDArray[np.int64]  # (count + 1,) pixels of each region; areas[0] is 0

    @property
    def count(self) -> int:
        """How many regions there are."""
        return len(self.areas) - 1


def closed_regions(ink: Float, mask: Float, speck_px: float = SPECK_PX, gap_px: float = 0.0) -> Regions:
    """Find the 4-connected pieces of paper inside the mask.

    ink, mask: (H, W) in 0..1. A region has bare paper, and all the lighter pixels between the same dark strokes belong
    to it; a sliver too narrow to show bare paper is a region as well. Less than `speck_px` pixels are none.
    gap_px: pieces that are joined only through gaps up to this wide are regions of their own, see `close_gaps`.
    """
    inside = mask > 0.5
    rooms, room, _ = _components(inside & (ink < SLIVER_BELOW), speck_px)
    _, labels, areas = _components(inside & (ink < PAPER_BELOW) & (room > 0), speck_px)
    # A room between dark strokes without bare paper is a sliver: all of it is one region.
    furnished = np.zeros(rooms + 1, bool)
    furnished[room[labels > 0]] = True
    furnished[0] = True
    numbers = np.zeros(rooms + 1, np.int32)
    numbers[~furnished] = len(areas) + np.arange((~furnished).sum())
    if not furnished.all():
        labels = np.where(labels > 0, labels, numbers[room]).astype(np.int32)
    depth = cv2.distanceTransform((labels > 0).astype(np.uint8), cv2.DIST_L2, 3)
    # The light edges of strokes go to the region nearest in the same room, not to the one beyond the stroke.
    edges = np.flatnonzero((labels == 0) & (room > 0))
    if len(edges):
        near = nearest_labelled(labels).reshape(-1)[edges]
        here, there = room.reshape(-1)[edges], room.reshape(-1)[near]
        only = np.zeros(rooms + 1, np.int32)
        only[room.reshape(-1)[np.flatnonzero(labels)]] = labels.reshape(-1)[np.flatnonzero(labels)]
        labels.reshape(-1)[edges] = np.where(here == there, labels.reshape(-1)[near], only[here])
    areas = np.bincount(labels.reshape(-1), minlength=1)
    areas[0] = 0
    regions = Regions(labels, depth, areas)
    return close_gaps(regions, gap_px) if gap_px > 0 else regions


def close_gaps(regions: Regions, gap_px: float) -> Regions:
    """Part regions where a ball of a gap's width gets stuck between two rooms: where an outline was left open.

    gap_px: width of the widest gap that is closed. After the trapped balls of Zhang et al. 2009 (Vectorizing Cartoon
    Animations): the balls' places are read off the distance to the nearest line, for several sizes of ball. Both sides
    of a gap have to be clearly wider than it, so that a limb that narrows stays whole. The new border runs where it is
    as far to the one room as to the other.
    """
    rows, columns = np.flatnonzero(regions.labels.any(axis=1)), np.flatnonzero(regions.labels.any(axis=0))
    if not len(rows):
        return regions
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labels, depth = np.ascontiguousarray(regions.labels[box]), np.ascontiguousarray(regions.depth[box])
    rooms, home = labels, np.arange(regions.count + 1)  # numbers of rooms, and the region that each is in
    for share in GAP_SHARES:
        reach = share * gap_px / 2
        is_deep = depth > reach
        count, found, stats, _ = cv2.connectedComponentsWithStats(
            is_deep.view(np.uint8), connectivity=4, ltype=cv2.CV_32S
        )
        deep = np.flatnonzero(is_deep)
        inside = np.zeros(count, np.int64)
        inside[found.reshape(-1)[deep]] = rooms.reshape(-1)[deep]
        roomy = np.zeros(count, bool)
        roomy[found[depth >= ROOM * reach]] = True
        roomy &= (stats[:, cv2.CC_STAT_AREA] >= SMALLEST_ROOM_PX) & (inside > 0)
        parted = np.bincount(inside[roomy], minlength=len(home)) > 1
        new = np.flatnonzero(roomy & parted[inside])
        if not len(new):
            continue
        numbers = np.zeros(count, np.int32)
        numbers[new] = len(home) + np.arange(len(new))
        home = np.concatenate([home, home[inside[new]]])
        rooms = np.where(parted[rooms], numbers[found], rooms).astype(np.int32)
    if len(home) == regions.count + 1:
        return regions
    return _grow_back(regions, box, rooms, home)


def _grow_back(regions: Regions, box: tuple[slice, slice], rooms: Labels, home: NDArray[np.int64]) -> Regions:
    """Give every pixel of a parted region to the nearest of the region's rooms.

    rooms: (h, w) numbers of the rooms in a box of the drawing. home: the region of each.
    """
    there = np.unique(rooms[rooms > 0])
    labels, count = regions.labels.copy(), regions.count
    part = labels[box]
    for region in np.unique(home[there[there > regions.count]]):
        own = there[home[there] == region]
        inside = regions.labels[box] == region
        left, top, width, height = cv2.boundingRect(inside.astype(np.uint8))
        here = np.s_[top : top + height, left : left + width]
        seeds = np.where(inside[here], rooms[here], 0)
        numbers = np.zeros(len(home), np.int32)
        numbers[own] = [region, *(count + 1 + np.arange(len(own) - 1))]
        count += len(own) - 1
        nearest = seeds.reshape(-1)[nearest_labelled(seeds)]
        part[here] = np.where(inside[here], numbers[nearest], part[here])
    areas = np.bincount(labels.reshape(-1), minlength=count + 1)
    areas[0] = 0
    return Regions(labels, regions.depth, areas)


def nearest_labelled(labels: Labels) -> NDArray[np.int64]:
    """Give every pixel the flat position of the labelled pixel nearest to it (itself if it has one), (H, W).

    At least one pixel must have a label above 0.
    """
    known = labels > 0
    _, seeds = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    places = np.flatnonzero(known)
    positions = np.zeros(len(places) + 1, np.int64)
    positions[seeds.reshape(-1)[places]] = places
    return np.asarray(positions[seeds], np.int64)


def pixels_of_regions(regions: Regions) -> list[NDArray[np.int64]]:
    """List the flat pixel positions of each region, in reading order."""
    return pixels_of_labels(regions.labels, regions.areas[1:])


def pixels_of_labels(labels: Labels, areas: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """List the flat pixel positions of each label from 1, in reading order. areas: (count,) pixels that each has."""
    labelled = np.flatnonzero(labels)
    numbers = labels.reshape(-1)[labelled]
    # NumPy sorts 16-bit whole numbers by radix, ten times as fast.
    small = numbers.astype(np.uint16) if len(areas) < 65536 else numbers
    ordered = labelled[np.argsort(small, kind="stable")]
    return np.split(ordered, np.cumsum(areas)[:-1]) if len(areas) else []


def _components(bits: NDArray[np.bool_], smallest: float) -> tuple[int, Labels, NDArray[np.int64]]:
    """Find 4-connected pieces of at least `smallest` pixels: how many, (H, W) their numbers from 1, their areas."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(bits.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    areas = stats[:, cv2.CC_STAT_AREA].astype(np.int64)
    kept = areas >= smallest
    kept[0], areas[0] = True, 0
    if not kept.all():
        labels = np.where(kept, np.cumsum(kept) - 1, 0).astype(np.int32)[labels]
        areas = areas[kept]
    return len(areas) - 1, labels, areas
