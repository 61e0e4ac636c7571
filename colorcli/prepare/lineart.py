"""Line art: whatever was drawn, scanned or painted becomes ink on paper, one number a pixel."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.images import Picture, over_paper
from colorcli.prepare.networks import Networks, asked_of
from colorcli.presets import LineSettings

Float = NDArray[np.float32]

LUMINANCE = np.array([[0.2126, 0.7152, 0.0722]], np.float32)  # Rec.709 weights, applied to encoded values
THUMBNAIL = 192          # longer side at which paper is measured, pixels: lines are gone, shadows of the page are not
EVEN_PAPER = 0.985       # paper brighter than this everywhere needs no whitening
STROKE_SHARE = 0.0045    # widest line, as a share of the picture's longer side
LINE_CONTRAST = 0.2, 0.6  # a colored drawing's line is this much darker than what lies beside it: none .. full ink


@dataclass(frozen=True)
class LineArt:
    """A drawing as the model wants it."""

    ink: Float  # (H, W) at source size, 0 paper .. 1 full black line


def read_lines(picture: Picture, settings: LineSettings, networks: Networks | None = None) -> LineArt:
    """Find the lines of a frame, by the preset's mode; marks too small to be drawn are taken out.

    networks: asked if the preset has the lines extracted by a network.
    """
    if by_network(settings):
        ink = asked_of(networks, "lines.network").lines(_right_way_round(picture, settings))
    else:
        ink = MODES[settings.mode](picture, settings)
    return LineArt(without_dust(ink, settings.min_stroke_px))


def by_network(settings: LineSettings) -> bool:
    """Tell whether the preset has lines found by a network."""
    return settings.mode == "extract" and settings.extractor == "network" and settings.network is not None


def lines_of_color(picture: Picture, settings: LineSettings, networks: Networks | None = None) -> LineArt:
    """Find the outlines of a colored drawing as a frame of the same character would show them.

    Where a network finds the lines of the frames, it finds those of the key: one hand has drawn both then.

    A line is what is thin and clearly darker than both its sides. A strong border between two fields, as of a dark
    trouser leg on white, counts for less; the border of a shadow is none.
    """
    color = over_paper(picture)
    if by_network(settings):
        ink = asked_of(networks, "lines.network").lines(color)
        return LineArt(without_dust(ink, settings.min_stroke_px))
    value = _value(color)
    longer = max(value.shape)
    reach = max(2, round(STROKE_SHARE * longer))
    # Closing paints a thin dark line with the darker of its two sides, and leaves fields and their borders alone.
    beside = cv2.morphologyEx(value, cv2.MORPH_CLOSE, np.ones((2 * reach + 1,) * 2, np.uint8))
    thin = _ramp((beside - value) / (beside + np.float32(0.04)), *LINE_CONTRAST)
    # XDoG leaves narrow dark fields, such as a tie, empty, which a closing takes for lines.
    ink = cv2.min(thin, _xdog_value(value, sigma=max(0.8, longer * 1.2 / 1280)))
    border = _xdog_value(value, sigma=max(0.4, longer * 0.5 / 1280), epsilon=0.0, phi=1.0)
    return LineArt(without_dust(cv2.max(ink, border * np.float32(0.7)), settings.min_stroke_px))


# --- the modes of a frame ----------------------------------------------------------------------------------------


def clean_lines(picture: Picture, settings: LineSettings) -> Float:
    """Ink as it was drawn: gray stays gray, paper becomes empty."""
    darkness = _darkness(picture, settings)
    level = 1 - settings.paper
    return darkness * _ramp(darkness, level / 2, level)


def pencil_lines(picture: Picture, settings: LineSettings) -> Float:
    """Soft gray strokes become ink: grain and smudges go, faint strokes gain weight."""
    darkness = _darkness(picture, settings)
    scale = max(picture.size) / 1280
    smooth = cv2.GaussianBlur(darkness, (0, 0), max(0.8, 0.9 * scale))
    smudge = cv2.GaussianBlur(smooth, (0, 0), 6 * max(1.0, scale))
    stroke = smooth - np.minimum(smudge, 0.8 * smooth)
    clear = stroke[stroke > 8 / 255]
    typical = max(16 / 255, float(np.percentile(clear[:: max(1, clear.size // 100_000)], 60))) if clear.size else 1.0
    level = max(1 - settings.paper, 0.05)
    # Solid blacks are flat inside, so the high-pass is empty there.
    return np.maximum(_ramp(stroke / typical, 0.3, 1.05), _ramp(darkness, 0.5, 0.9) * (smooth > level))


def extracted_lines(picture: Picture, settings: LineSettings) -> Float:
    """Lines out of a painted picture, by the preset's built-in extractor."""
    return EXTRACTORS[settings.extractor](_right_way_round(picture, settings))


def _right_way_round(picture: Picture, settings: LineSettings) -> Float:
    """The painted picture with dark lines, (H, W, 3)."""
    color = over_paper(picture)
    return 1 - color if settings.polarity == "light-on-dark" else color


MODES: dict[str, Callable[[Picture, LineSettings], Float]] = {
    "clean": clean_lines,
    "pencil": pencil_lines,
    "extract": extracted_lines,
}


# --- extractors --------------------------------------------------------------------------------------------------


def xdog(color: Float) -> Float:
    """Extended difference of Gaussians on a painted picture (H, W, 3) in 0..1: (H, W) ink."""
    value = _value(color)
    return _xdog_value(value, sigma=max(0.5, max(value.shape) / 2000))


def _xdog_value(value: Float, *, sigma: float, epsilon: float = 0.9, phi: float = 2.0) -> Float:
    """Extended difference of Gaussians (Winnemöller et al. 2012) of lightness relative to its surroundings; gives ink.

    value: (H, W). sigma: of the finer Gaussian, pixels; epsilon: response below which ink begins; phi: how steeply.
    Relative, so that a dark field is paper and lines inside it still show.
    """
    k, sharpness = 1.6, 16.0
    fine, coarse = cv2.GaussianBlur(value, (0, 0), sigma), cv2.GaussianBlur(value, (0, 0), k * sigma)
    response = 1 + sharpness * (fine - coarse) / (coarse + np.float32(0.1))
    ink: Float = np.tanh(phi * np.maximum(epsilon - response, 0)).astype(np.float32)
    return ink


def highpass(color: Float) -> Float:
    """The standard line art (`standard_line_art`) as ink: twice its value, so that a typical line is full."""
    lines = standard_line_art(np.round(color * 255).astype(np.uint8))
    result: Float = np.minimum(lines.astype(np.float32) * np.float32(2 / 255), 1)
    return result


EXTRACTORS: dict[str, Callable[[Float], Float]] = {"xdog": xdog, "highpass": highpass}


def standard_line_art(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give the published high-pass line art: (H, W) 8-bit, lines high, a typical line at 127.

    picture: (H, W, 3). What is darker than its blurred surroundings in every channel, scaled by the median of the
    clear values.
    """
    values = picture.astype(np.float32)
    blurred = cv2.GaussianBlur(values, (0, 0), 6.0)
    darker = np.clip((blurred - values).min(axis=2), 0, 255)
    clear = darker[darker > 8]
    typical = max(16.0, float(np.median(clear))) if clear.size else 16.0
    return np.clip(darker / typical * 127, 0, 255).astype(np.uint8)


# --- paper -------------------------------------------------------------------------------------------------------


def alpha_is_lines(alpha: Float, *, wide: float = 0.3) -> bool:
    """Tell whether alpha covers thin lines alone, not a character. True if less than `wide` of it is thick."""
    solid = (alpha > 0.5).astype(np.uint8)
    area = int(cv2.countNonZero(solid))
    if not area:
        return False
    reach = max(2, round(1.5 * STROKE_SHARE * max(alpha.shape)))
    kernel = np.ones((2 * reach + 1,) * 2, np.uint8)
    thick = cv2.countNonZero(cv2.erode(solid, kernel))
    # Eroding shrinks thick parts as well; opening would give their area back, at twice the cost.
    return thick < 0.5 * wide * area


def is_light_on_dark(value: Float) -> bool:
    """Tell whether lines are lighter than the paper. value: (H, W) in 0..1.

    Mostly white or mostly black settles it; otherwise lines are the rare, strong departures from what lies around them.
    """
    small = value[::2, ::2]
    white, black = float((small > 0.96).mean()), float((small < 0.04).mean())
    if max(white, black) > 0.4:
        return black > white
    away = small - cv2.blur(small, (31, 31))
    return float((away * away * away).mean()) > 0


def paper_level(value: Float) -> Float | None:
    """Measure how bright the paper is, everywhere: (H, W); None where it is white already.

    A cubic surface through what looks like paper at a small size: it follows a lamp or a page that does not lie flat,
    and passes over gray and black fields.
    """
    rows, columns = value.shape
    shrink = min(1.0, THUMBNAIL / max(rows, columns))
    size = max(8, round(columns * shrink)), max(8, round(rows * shrink))
    small = cv2.resize(value, size, interpolation=cv2.INTER_AREA)
    small = cv2.blur(cv2.dilate(small, np.ones((5, 5), np.uint8)), (5, 5))
    if float(small.min()) > EVEN_PAPER:
        return None
    y, x = np.meshgrid(np.linspace(-1, 1, size[1]), np.linspace(-1, 1, size[0]), indexing="ij")
    terms = np.stack([x**i * y**j for i in range(4) for j in range(4 - i)], axis=-1).reshape(-1, 10)
    samples = small.reshape(-1).astype(np.float64)
    surface = np.full(samples.shape, np.percentile(samples, 75))
    for tolerance in (0.30, 0.15, 0.08, 0.05, 0.05):
        paper = np.abs(samples - surface) < tolerance
        if paper.sum() < 0.05 * samples.size:
            break
        # A little weight keeps the surface near the mean where there is no paper to hold it.
        gram = terms[paper].T @ terms[paper] + np.diag([0.0, *[1e-3 * paper.sum()] * 9])
        surface = terms @ np.linalg.solve(gram, terms[paper].T @ samples[paper])
    if float(surface.min()) > EVEN_PAPER:
        return None
    level = np.clip(surface, 0.25, 1).reshape(size[1], size[0]).astype(np.float32)
    return cv2.resize(level, (columns, rows), interpolation=cv2.INTER_LINEAR)


def without_dust(ink: Float, min_stroke_px: int) -> Float:
    """Take out separate marks of less than `min_stroke_px` pixels of area. ink: (H, W)."""
    if min_stroke_px <= 1:
        return ink
    marks = (ink > 0.06).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(marks, connectivity=8, ltype=cv2.CV_32S)
    small = stats[:, cv2.CC_STAT_AREA] < min_stroke_px
    small[0] = False
    if not small.any():
        return ink
    result = ink.copy()
    for label in np.flatnonzero(small) if small.sum() < 64 else ():
        left, top, width, height = stats[label, :4]
        part = np.s_[top : top + height, left : left + width]
        result[part][labels[part] == label] = 0
    if small.sum() >= 64:
        result[small[labels]] = 0
    return result


def _darkness(picture: Picture, settings: LineSettings) -> Float:
    """Give how much darker than the paper each pixel is, (H, W) in 0..1, with paper made even and polarity righted."""
    value = _value(picture.color)
    alpha = picture.alpha
    if alpha is not None and alpha_is_lines(alpha):
        drawn = value[alpha > 0.5]
        bright = bool(drawn.mean() > 0.6) if settings.polarity == "auto" else settings.polarity == "light-on-dark"
        return alpha * (value if bright else 1 - value)
    if alpha is not None:
        value = (value - 1) * alpha + 1
    if settings.polarity == "light-on-dark" or (settings.polarity == "auto" and is_light_on_dark(value)):
        value = 1 - value
    level = paper_level(value)
    if level is not None:
        value = np.minimum(value / level, 1)
    return 1 - value


def _value(color: Float) -> Float:
    """Give lightness that counts colored lines as well: half luminance, half the darkest channel."""
    luminance = cv2.transform(color, LUMINANCE)
    red, green, blue = cv2.split(color)
    return cv2.addWeighted(luminance, 0.5, cv2.min(cv2.min(red, green), blue), 0.5, 0)


def _ramp(values: Float, low: float, high: float) -> Float:
    """0 below `low`, 1 above `high`, straight between."""
    result: Float = np.clip((values - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return result
