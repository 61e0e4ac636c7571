"""Character masks: where the character is, from alpha, from files, or from the drawing itself."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.images import Picture, over_paper
from colorcli.prepare.canvas import bounds
from colorcli.prepare.lineart import STROKE_SHARE, LineArt, alpha_is_lines
from colorcli.prepare.regions import closed_regions
from colorcli.presets import MaskSettings

Float = NDArray[np.float32]
Bits = NDArray[np.uint8]  # (H, W), 0 or 1

WORK_SIDE = 640        # longer side at which rooms and doors are looked for, pixels
LINE_LEVEL = 0.15      # ink above this stops the paper
SURROUNDED = 0.8, 0.88, 0.95, 1.1  # share of directions in which a line is met: outside below the first, then in steps
NARROW, PASSAGE = 1.2, 6.0   # behind a gap lie at least so many squares of its width; behind a passage so many more
DIRECTIONS = 16        # in which lines are looked for
SMALL_GAP = 2.5        # half the width of a gap that is closed whatever lies behind it, pixels at WORK_SIDE
BITE = 0.045          # radius of the largest notch that a gap may leave, as a share of the longer side
BARE_RIM = 0.4        # share of a notch's rim that must be paper of the character
PAPER_BORDER = 0.85    # share of the upper border that has the paper's color, else the background is painted
CUT_OUT_SIDE = 256     # longer side at which a figure is cut out of a painted background, pixels
SLIP = 0.004           # how far a network's mask may miss a line, as a share of the longer side
MARGIN = 21            # side of the square by which a network's mask grows before its character is bleached out, pixels
SAME_PAPER = 0.045     # largest difference in a channel that is still the paper's color


def expand_grid(mask: Float, cell: tuple[int, int]) -> Float:
    """Fill every cell of a grid with the largest mask value in it; never below the mask itself.

    mask: (..., H, W). cell: rows and columns, limited to half the picture. Cells start at the top left; an incomplete
    cell at the right or bottom keeps the mask. arXiv:2504.06895, preparation of the reference mask.
    """
    rows, columns = mask.shape[-2:]
    height, width = min(cell[0], rows // 2), min(cell[1], columns // 2)
    down, across = rows // height, columns // width
    whole = mask[..., : down * height, : across * width]
    cells = whole.reshape(*mask.shape[:-2], down, height, across, width).max((-3, -1))
    result = mask.copy()
    spread = cells.repeat(height, -2).repeat(width, -1)
    result[..., : down * height, : across * width] = np.maximum(whole, spread)
    return result


def bounding_box(mask: Float) -> Float:
    """Fill the smallest box around the values above 0.5; a mask without any stays as it is. mask: (..., H, W)."""
    layers = []
    for layer in mask.reshape(-1, *mask.shape[-2:]):
        rows, columns = np.nonzero(layer > 0.5)
        if rows.size:
            box = np.zeros_like(layer)
            box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = 1
            layer = box
        layers.append(layer)
    return np.stack(layers).reshape(mask.shape)


def threshold(mask: Float, level: float | Float) -> Float:
    """Give 1 where the mask is above `level`, else 0. mask: (B, ..., H, W). level: one number, or (B,)."""
    levels = np.asarray(level, np.float32)
    if levels.ndim:
        levels = levels.reshape(-1, *[1] * (mask.ndim - 1))
    return (mask > levels).astype(np.float32)


def dilate(mask: Float, size: int) -> Float:
    """Give the largest value in the `size` x `size` square around each pixel; size is odd. mask: (..., H, W)."""
    assert size % 2 == 1, size
    kernel = np.ones((size, size), np.uint8)
    layers = [cv2.dilate(layer, kernel) for layer in mask.reshape(-1, *mask.shape[-2:])]
    return np.stack(layers).reshape(mask.shape)


def merge_masks(masks: Sequence[Float], rule: str) -> Float:
    """Make one mask of several characters' masks: the largest value ("union"), or the first mask alone ("first")."""
    assert masks, "nothing to merge"
    if rule == "first":
        return masks[0]
    result: Float = np.maximum.reduce(list(masks))
    return result


# --- the character, from the picture itself ----------------------------------------------------------------------


def character_mask(
    picture: Picture,
    lines: LineArt,
    settings: MaskSettings,
    given: Sequence[Float] = (),
    *,
    colored: bool = False,
    network: Callable[[], Float] | None = None,
) -> Float:
    """Give the mask of the character, (H, W) in 0..1, by the preset's rule.

    given: masks that came as files, (H, W) at source size. colored: the picture is a painted key, not line art.
    network: gives the mask that a network finds, for the source "network"; None: that source is as "auto".
    """
    alpha = alpha_mask(picture)
    if settings.source == "none":
        mask = np.ones(lines.ink.shape, np.float32)
    elif given and settings.source in ("auto", "files", "network"):
        mask = merge_masks(given, settings.merge)
    elif settings.source == "network" and network is not None:
        mask = network()
    elif settings.source == "alpha" and picture.alpha is not None:
        mask = picture.alpha
    elif settings.source in ("auto", "network") and alpha is not None:
        mask = alpha
    elif colored:
        mask = mask_from_flat(over_paper(picture), lines.ink)
    else:
        mask = mask_from_lines(lines.ink)
    return dilate(mask, 2 * settings.grow_px + 1) if settings.grow_px else mask


def alpha_mask(picture: Picture) -> Float | None:
    """Give the alpha where it outlines a character; None where it is full everywhere or covers the lines alone."""
    alpha = picture.alpha
    if alpha is None or cv2.countNonZero((alpha > 0.5).astype(np.uint8)) > 0.995 * alpha.size or alpha_is_lines(alpha):
        return None
    return alpha


def snap_to_lines(mask: Float, ink: Float) -> Float:
    """Bring the edge of a mask that a network found onto the lines of the drawing. mask, ink: (H, W) in 0..1.

    A closed region lies inside or outside as most of it does, so that no region is colored by halves. Where a region
    of the background (it reaches the frame, or is larger than the character) runs through a gap into the character, the
    network's edge stays, but for slips as thin as its error along the lines. Strokes that bound the
    character belong to it, others do not.
    """
    inside = mask > 0.5
    if not inside.any():
        return np.zeros_like(ink)
    longer = max(ink.shape)
    labels = closed_regions(ink, np.ones_like(ink)).labels
    paper = labels > 0
    areas = np.bincount(labels.reshape(-1))
    held = np.bincount(labels.reshape(-1), weights=inside.reshape(-1))
    belongs = (2 * held > areas)[labels] & paper
    slip = max(3, round(SLIP * longer))
    within, without = paper & inside, paper & ~inside
    cores = [cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, 3) > slip for part in (within, without)]
    both = [np.bincount(labels[core], minlength=len(areas)) > slip * slip for core in cores]
    is_open = both[0] & both[1]
    # A region inside the drawing that is smaller than the character is a part of it, or of something behind it.
    frame = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    is_open &= (np.bincount(frame, minlength=len(areas)) > 0) | (areas > inside.sum())
    if is_open.any():
        torn = is_open[labels]
        kept = [
            _grown_within(core & torn, part, slip + slip // 2)
            for core, part in zip(cores, (within, without), strict=True)
        ]
        belongs[torn] = (kept[0] | (without & ~kept[1]))[torn]
    reach = max(2, round(STROKE_SHARE * longer))
    around = cv2.dilate(belongs.astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8))
    snapped = _at_full_size((paper & ~belongs).astype(np.uint8), 0, ink, LINE_LEVEL)
    return np.where((around > 0) | (inside & ~paper), snapped, np.float32(0))


def _grown_within(seeds: NDArray[np.bool_], room: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """Grow seeds by so many pixels, around corners but never out of the room. Both (H, W)."""
    grown, free = seeds.astype(np.uint8), room.astype(np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for _ in range(steps):
        grown = cv2.dilate(grown, cross) & free
    return grown > 0


def mask_from_lines(ink: Float) -> Float:
    """Find the character in line art: what paper, coming in from the corners, does not reach.

    ink: (H, W). Gaps in the outline are closed (`outside_paper`). The outline itself is part of the character.
    """
    step = max(1, -(-max(ink.shape) // WORK_SIDE))
    barrier = (_pooled(ink, step) > LINE_LEVEL).astype(np.uint8)
    if not barrier.any():
        return np.zeros_like(ink)
    return _at_full_size(outside_paper(barrier), step, ink, LINE_LEVEL)


def mask_from_flat(color: Float, ink: Float) -> Float:
    """Find the character in a painted key: what the border's paper, coming in from the corners, does not reach.

    color: (H, W, 3) in 0..1. ink: (H, W) the key's lines. Paper of a color of its own is also taken out where the
    character encloses it; enclosed white may be a shirt or an eye, and stays. Before a painted background the figure is
    cut out by its colors.
    """
    paper = _paper_color(color)
    if paper is None:
        return _cut_out(color)
    away = cv2.absdiff(color, np.broadcast_to(paper, color.shape))
    red, green, blue = cv2.split(away)
    away = cv2.max(cv2.max(red, green), blue)
    step = max(1, -(-max(ink.shape) // WORK_SIDE))
    barrier = (_pooled(away, step) > SAME_PAPER).astype(np.uint8)
    outside = outside_paper(barrier, shoulders=False)
    if paper.min() < 0.93:
        outside |= _wide_rooms(barrier)
    return _at_full_size(outside, step, away, SAME_PAPER)


def outside_paper(barrier: Bits, *, shoulders: bool = True) -> Bits:
    """Tell which paper lies outside the character: (H, W), 1 = outside. barrier: 1 where a line stops the paper.

    The paper spreads from the corners over all that is not surrounded by lines. What it could still reach from there is
    let in if it is a passage, as between the legs or under an arm; it is kept out if the way in is a gap in a stroke.
    shoulders: paper in a lower corner may be a body that the frame cuts off (not so where paper is told by its color).
    """
    barrier = barrier.copy()
    seeds, cut_off = _border_paper(1 - barrier, shoulders)
    if not seeds.any():
        return seeds
    # Where a body is cut off by the frame, the frame's edge is its outline.
    barrier |= cut_off
    free = 1 - barrier
    surrounded = _surroundedness(barrier)
    wide = cv2.distanceTransform(np.pad(free, 1, constant_values=1), cv2.DIST_L2, 3)[1:-1, 1:-1] >= SMALL_GAP
    wide_paper = wide.astype(np.uint8) & free
    strokes = _stroke_directions(barrier)
    outside = _connected((surrounded < SURROUNDED[0]).astype(np.uint8) & free, seeds)
    inside = np.zeros_like(free)
    # In steps: the space between two legs has to be let in before a gap in the outline of one of them is looked at.
    for level in SURROUNDED[1:]:
        hidden = wide_paper & (1 - outside) & (1 - inside)
        _, whole, stats, _ = cv2.connectedComponentsWithStats(hidden, connectivity=4)
        hidden &= (surrounded < level).astype(np.uint8)
        _judge_rooms(hidden, stats[:, cv2.CC_STAT_AREA][whole], strokes, outside, inside)
    outside = _connected(free & (1 - inside) & (outside | 1 - wide_paper), outside)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inside = wide_paper & (1 - outside)
    outside &= wide_paper
    for _ in range(int(SMALL_GAP) + 1):
        outside, inside = cv2.dilate(outside, cross) & free & (1 - inside), cv2.dilate(inside, cross) & free
        inside &= 1 - outside
    return _without_bites(outside, barrier)


def _without_bites(outside: Bits, barrier: Bits) -> Bits:
    """Give back what the paper has bitten out of the character through a gap: a notch whose rim is paper, not line.

    The outline then runs straight across the gap. A notch between two lines, as between fingers, is left as it is.
    """
    radius = max(3, round(BITE * max(barrier.shape)))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    box = bounds(outside == 0)
    if box is None:
        return outside
    # A closing fills nothing beyond the box of what it closes.
    part = np.s_[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]
    figure = np.pad(1 - outside[part], radius)
    notches = np.zeros_like(outside)
    notches[part] = cv2.morphologyEx(figure, cv2.MORPH_CLOSE, disk)[radius:-radius, radius:-radius] & outside[part]
    count, labels = cv2.connectedComponents(notches, connectivity=4)
    if count == 1:
        return outside
    rim = cv2.dilate(labels.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int32) * (1 - outside)
    length = np.bincount(rim.reshape(-1), minlength=count)
    bare = np.bincount(rim.reshape(-1)[barrier.reshape(-1) == 0], minlength=count)
    bitten = bare > BARE_RIM * length
    bitten[0] = False
    return outside & (1 - bitten[labels].astype(np.uint8))


def _judge_rooms(
    hidden: Bits, areas: NDArray[np.int32], strokes: tuple[Float, Float, Float], outside: Bits, inside: Bits
) -> None:
    """Give each part of `hidden` that touches the outside to `outside` or to `inside`, both changed in place.

    areas: (H, W) area of all the paper that lies behind a pixel. A part is inside if one of its doors is a gap: narrow
    for what lies behind it, all the more so if the strokes at its two ends run along the door and not through it.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(hidden, connectivity=4)
    doors = cv2.dilate(outside, np.ones((3, 3), np.uint8)) & hidden
    for label in range(1, count):
        x, y, width, height, _ = stats[label]
        part = np.s_[y : y + height, x : x + width]
        room = labels[part] == label
        door = (room & (doors[part] > 0)).astype(np.uint8)
        door_count, door_labels = cv2.connectedComponents(door, connectivity=8)
        gaps = []
        for number in range(1, door_count):
            ys, xs = np.nonzero(door_labels == number)
            length, facing = _door_shape(ys + y, xs + x, strokes)
            needed = NARROW + PASSAGE * min(max((0.55 - facing) / 0.35, 0), 1)
            gaps.append(float(areas[y + ys[0], x + xs[0]]) > needed * length**2)
        if gaps:
            (inside if all(gaps) else outside)[part][room] = 1


def _door_shape(
    ys: NDArray[np.int64], xs: NDArray[np.int64], strokes: tuple[Float, Float, Float]
) -> tuple[float, float]:
    """Give the length of a door and how far the strokes at its ends run along it: 1 as in a gap, 0 as in a passage."""
    length = float(np.hypot(np.ptp(ys) + 1, np.ptp(xs) + 1))
    dy, dx = ys - ys.mean(), xs - xs.mean()
    turn = 0.5 * np.arctan2(2 * float(dx @ dy), float(dx @ dx) - float(dy @ dy))
    c, s = float(np.cos(turn)), float(np.sin(turn))
    along = dx * c + dy * s
    reach = int(max(4, 0.35 * length))
    total, facing = 1e-6, 0.0
    for end in (int(along.argmin()), int(along.argmax())):
        row, column = int(ys[end]), int(xs[end])
        near = np.s_[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
        xx, xy, yy = (float(tensor[near].sum()) for tensor in strokes)
        total += xx + yy
        facing += c * c * xx + 2 * c * s * xy + s * s * yy
    return length, facing / total


def _surroundedness(barrier: Bits) -> Float:
    """Give the share of directions in which a line is met, 0..1, for every pixel."""
    rows, columns = barrier.shape
    step = max(1, round(max(rows, columns) / 200))
    small = _pooled(barrier.astype(np.float32), step)
    height, width = small.shape
    side = int(np.ceil(np.hypot(height, width))) + 2
    total = np.zeros_like(small)
    for turn in range(DIRECTIONS // 2):
        matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), 360.0 * turn / DIRECTIONS, 1.0)
        matrix[:, 2] += (side - width) / 2, (side - height) / 2
        turned = cv2.warpAffine(small, matrix, (side, side), flags=cv2.INTER_LINEAR) > 0.3
        met = np.logical_or.accumulate(turned, axis=1).astype(np.float32)
        met += np.logical_or.accumulate(turned[:, ::-1], axis=1)[:, ::-1]
        total += cv2.warpAffine(met, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    share = cv2.resize(total / DIRECTIONS, (width * step, height * step), interpolation=cv2.INTER_LINEAR)
    result: Float = share[:rows, :columns]
    return result


def _stroke_directions(barrier: Bits) -> tuple[Float, Float, Float]:
    """Give the tensor of stroke directions, (xx, xy, yy) each (H, W): how far the lines here run along x and y."""
    soft = cv2.GaussianBlur(barrier.astype(np.float32), (0, 0), 1.2)
    dx, dy = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    return dy * dy, -dx * dy, dx * dx


def _border_paper(free: Bits, shoulders: bool) -> tuple[Bits, Bits]:
    """Part the free border pixels in background (the stretches of border that hold a corner) and cut-off bodies.

    A stretch between two lines that reach the border is a body cut off by the frame. If no corner is background, every
    free border pixel is.
    """
    rows, columns = free.shape
    ys = np.r_[np.zeros(columns), np.arange(1, rows), np.full(columns - 1, rows - 1), np.arange(rows - 2, 0, -1)]
    left = np.zeros(max(rows - 2, 0))   # a frame may be a single row
    xs = np.r_[np.arange(columns), np.full(rows - 1, columns - 1), np.arange(columns - 2, -1, -1), left]
    ys, xs = ys.astype(np.int64), xs.astype(np.int64)
    ring = free[ys, xs].astype(bool)
    background, body = np.zeros_like(free), np.zeros_like(free)
    if ring.all():
        background[ys, xs] = 1
        return background, body
    start = int(np.flatnonzero(~ring)[0])
    ring, ys, xs = np.roll(ring, -start), np.roll(ys, -start), np.roll(xs, -start)
    # Stretches of free border, numbered clockwise from 0.
    stretch = np.zeros(ring.size, np.int64)
    stretch[ring] = np.unique(np.cumsum(~ring)[ring], return_inverse=True)[1]
    count = int(stretch[ring].max()) + 1 if ring.any() else 0
    sides = (xs == 0) | (xs == columns - 1)
    top = set(stretch[ring & sides & (ys == 0)].tolist())
    bottom = set(stretch[ring & sides & (ys == rows - 1)].tolist())
    # Straight below the upper background lie shoulders, with an outstretched arm between them it is background again.
    body_low = {n for n in bottom - top if shoulders and {(n - 1) % count, (n + 1) % count} & top}
    kept = ring & np.isin(stretch, list((top | bottom) - body_low))
    kept = kept if kept.any() else ring
    background[ys[kept], xs[kept]] = 1
    body[ys[ring & ~kept], xs[ring & ~kept]] = 1
    return background, body


def _connected(free: Bits, seeds: Bits) -> Bits:
    """Give the 4-connected parts of `free` that hold a seed."""
    count, labels = cv2.connectedComponents(free, connectivity=4)
    kept = np.zeros(count, np.uint8)
    kept[labels[(seeds & free) > 0]] = 1
    kept[0] = 0
    result: Bits = kept[labels]
    return result


def _wide_rooms(barrier: Bits) -> Bits:
    """Give enclosed areas of paper color that are more than a speck."""
    free = 1 - barrier
    _, labels, stats, _ = cv2.connectedComponentsWithStats(free, connectivity=4)
    wide = (stats[:, cv2.CC_STAT_AREA] > 2e-4 * barrier.size).astype(np.uint8)
    wide[0] = 0
    result: Bits = wide[labels]
    return result


def _paper_color(color: Float) -> Float | None:
    """Give the color that dominates the upper border, (3,); None if none does. Figures often cover the lower border."""
    rows = color.shape[0]
    edge = max(1, min(color.shape[:2]) // 100)
    upper = color[: max(edge, rows // 2)]
    border = np.concatenate([part.reshape(-1, 3) for part in (upper[:edge], upper[:, :edge], upper[:, -edge:])])
    bins = (border * 15.99).astype(np.int64) @ np.array([256, 16, 1])
    most = int(np.bincount(bins).argmax())
    paper = np.median(border[bins == most], axis=0).astype(np.float32)
    same = np.abs(border - paper).max(axis=1) < SAME_PAPER
    return np.median(border[same], axis=0).astype(np.float32) if same.mean() > PAPER_BORDER else None


def _cut_out(color: Float) -> Float:
    """Cut a figure out of a painted background by the colors of the border and of the middle (Rother et al. 2004)."""
    rows, columns = color.shape[:2]
    shrink = min(1.0, CUT_OUT_SIDE / max(rows, columns))
    size = max(8, round(columns * shrink)), max(8, round(rows * shrink))
    small = cv2.resize((color * 255).astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    width, height = size
    guess = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    guess[height // 12 :, width // 5 : width - width // 5] = cv2.GC_PR_FGD
    edge = max(1, min(size) // 40)
    # The lower border is no evidence: figures stand on it or are cut off by it.
    guess[:edge] = guess[:, :edge] = guess[:, -edge:] = cv2.GC_BGD
    cv2.setRNGSeed(0)  # the color models start from random samples: one key has one mask
    cv2.grabCut(small, guess, None, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    figure = ((guess == cv2.GC_FGD) | (guess == cv2.GC_PR_FGD)).astype(np.float32)
    result: Float = cv2.resize(figure, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return result


def _pooled(values: Float, step: int) -> Float:
    """Give the largest value of each step x step block; (ceil(H / step), ceil(W / step))."""
    if step == 1:
        return values
    rows, columns = values.shape
    edges = (0, -rows % step), (0, -columns % step)
    padded = np.pad(values, edges, mode="edge") if any(edge[1] for edge in edges) else values
    result = padded[::step]
    for offset in range(1, step):
        result = np.maximum(result, padded[offset::step])
    wide = result
    result = wide[:, ::step]
    for offset in range(1, step):
        result = np.maximum(result, wide[:, offset::step])
    return np.ascontiguousarray(result)


def _at_full_size(outside: Bits, step: int, away: Float, same: float) -> Float:
    """Make the mask of source size: `outside` runs on through free pixels, up to the lines it stopped before.

    away: (H, W) how far each pixel is from paper, below `same` it is paper. The character begins half-way between paper
    and the strongest pixel beside it; the first pixel outside keeps its share, so that edges stay smooth.
    """
    rows, columns = away.shape
    strongest = np.maximum(cv2.dilate(away, np.ones((5, 5), np.uint8)), same)
    free = (away < np.maximum(0.5 * strongest, same)).astype(np.uint8)
    if step > 1:
        outside = cv2.resize(outside, None, fx=step, fy=step, interpolation=cv2.INTER_NEAREST)[:rows, :columns]
    outside = outside & free
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for _ in range(step + 1):
        outside = cv2.dilate(outside, cross) & free
    inside = 1 - outside
    rim = cv2.dilate(inside, np.ones((3, 3), np.uint8)) & outside
    result: Float = np.where(rim > 0, np.minimum(away / strongest, 0.499), inside).astype(np.float32)
    return result
