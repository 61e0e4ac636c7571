"""What the margin rule of the palette brings: `python -m benchmarks.palette [--characters 24] [--keys 60]`.

Drawn characters of styles never trained on are laid out in their true colors, tones and all, but drifted: each closed
region by a random step, and each tone in it by one half as large, as the colors of a model drift. They are snapped to
the key's palette once to whatever is nearest, and once by the rule. The last row is what mini makes of them.

Of more keys it is counted which pairs of a color and its shadow are found: those of characters that are drawn with a
shadow tone, where a color is another one in that tone; in all others there are none.

Counted are pieces of 40 pixels and more whose true color is one of the key's. Right is that color and no other.
"""

import argparse
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.keys import drawn
from benchmarks.machine import machine, note, report

FIRST_SEED = 4_000_000   # other characters than those that the margin was chosen on, and those of `evaluate`
DRIFTS = (0.0, 0.02, 0.04, 0.06)   # standard deviation of a channel, of 1
SMALLEST_PX = 40
SAME = 2.0               # CIEDE2000 within which a true color is one of the key's
ONE_TONE, VARIED_TONE = 2.5, 5.0   # CIEDE2000 within which it is another in a shadow's tone, and in one that varies

Floats = NDArray[np.float32]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=24, help="drawn characters, two frames of each")
    parser.add_argument("--keys", type=int, default=60, help="keys in which pairs are looked for")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    report(measure(options.characters, options.keys), options.json)


def measure(characters: int, keys: int) -> dict[str, Any]:
    """Snap the frames of drawn characters, and look for pairs in keys."""
    from colorcli.loading import load_pipeline
    from colorcli.prepare.frame import prepare_frame
    from colorcli.prepare.key import prepare_key
    from colorcli.presets import Preset

    pipeline = load_pipeline("mini")
    counts = {name: Counter[str]() for name in (*(f"drift {drift:g}" for drift in DRIFTS), "mini")}
    for number in range(characters):
        pictures, frames = drawn(FIRST_SEED + number, number)
        key = prepare_key(pictures[0], Preset(), pipeline.variant)
        reference = pipeline.encode_reference(key, Preset())
        for line, truth in frames:
            frame = prepare_frame(line, Preset(), pipeline.variant)
            known = Known(frame, key, truth.color)
            for drift in DRIFTS:
                random = np.random.default_rng([number, round(1000 * drift)])
                counts[f"drift {drift:g}"] += known.counted(known.drifted(drift, random))
            (layer,) = pipeline.color([frame], reference, Preset())
            counts["mini"] += known.counted(layer)
        if number % 8 == 7:
            note(f"{number + 1} of {characters} characters")
    rows = [{"colors": name, **{word: count[word] for word in WORDS}} for name, count in counts.items()]
    pairs = Counter[str]()
    for number in range(keys):
        pairs += pairs_found(FIRST_SEED + number, number)
    return {"benchmark": "palette", "machine": machine(), "rows": rows, "pairs": dict(sorted(pairs.items()))}


WORDS = ("pieces", "nearest right", "rule right", "became right", "became wrong", "unsure", "unsure and wrong")


def pairs_found(seed: int, number: int) -> Counter[str]:
    """Count the pairs of a drawn key: "right", "of another color", "missed", and what is told but is "no pair"."""
    from colorcli.finish.difference import ciede2000, lab_of
    from colorcli.prepare.key import prepare_key
    from colorcli.presets import Preset
    from colorcli.train.data.characters import VALIDATION_SEED
    from colorcli.train.drawings import VALIDATION_FAMILIES, design_character
    from colorcli.variants import VARIANTS

    (picture, _), _ = drawn(seed, number)
    key = prepare_key(picture, Preset(), VARIANTS["mini"])
    families = tuple(VALIDATION_FAMILIES)
    shading = design_character(seed + VALIDATION_SEED, families[number % len(families)]).shading
    colors = key.palette.colors
    true = np.arange(len(colors))
    if shading is not None:
        apart = ciede2000(lab_of(colors)[:, None], lab_of(colors * np.float32(shading.multiply))[None])  # (K, K)
        np.fill_diagonal(apart, np.inf)
        near = apart.min(axis=1) < (VARIED_TONE if shading.spread else ONE_TONE)
        true = np.where(near, apart.argmin(axis=1), true)
    found: Counter[str] = Counter()
    for color, lit in enumerate(key.shadows):
        if true[color] != color:
            found["missed" if lit == color else "right" if lit == true[color] else "of another color"] += 1
        elif lit != color:
            found["no pair"] += 1
    return found


@dataclass(frozen=True)
class Known:
    """A prepared frame, its key, and its true colors."""

    frame: Any
    key: Any
    truth: Floats   # (H, W, 3) with lines

    def drifted(self, drift: float, random: np.random.Generator) -> Floats:
        """Lay out the true colors on the canvas, (h, w, 3), each region and each tone of it off by a random step."""
        from colorcli.prepare.canvas import to_canvas
        from colorcli.prepare.regions import nearest_labelled

        frame = self.frame
        clean = (frame.lines.ink < 0.1) & (frame.mask > 0.5)
        pixels = nearest_labelled(clean.astype(np.int32)).reshape(-1)
        regions = frame.regions.labels.reshape(-1)[nearest_labelled(frame.regions.labels).reshape(-1)]
        tones, tone = np.unique((self.truth.reshape(-1, 3)[pixels] * 32).astype(np.int64) @ [1, 64, 4096],
                                return_inverse=True)
        steps = random.normal(0, drift, (frame.regions.count + 1, 3))[regions]
        steps += random.normal(0, drift / 2, (len(tones), 3))[tone]
        colors = np.clip(self.truth.reshape(-1, 3)[pixels] + steps, 0, 1)
        return to_canvas(colors.reshape(self.truth.shape).astype(np.float32), frame.canvas, 1)

    def counted(self, layer: Floats) -> Counter[str]:
        """Count how many pieces have their color, snapped in the two ways."""
        from colorcli.finish.difference import ciede2000, lab_of
        from colorcli.finish.finish import fill_character
        from colorcli.presets import FinishSettings, Preset

        fill = partial(fill_character, layer, self.frame, self.key, regions=self.frame.regions)
        nearest = fill(preset=Preset(finish=FinishSettings(palette_margin=0)))
        ruled = fill(preset=Preset())
        palette = self.key.palette.colors
        pieces = np.where(self.frame.regions.labels > 0, ruled.labels, 0)   # without what lies under the lines
        found: Counter[str] = Counter()
        for piece in range(1, len(ruled.colors)):
            inside = pieces == piece
            if inside.sum() < SMALLEST_PX:
                continue
            true = np.median(self.truth[inside], axis=0)
            apart = ciede2000(lab_of(true)[None], lab_of(palette))
            if apart.min() >= SAME:
                continue
            right = palette[apart.argmin()]
            before, after = ((colors[piece] == right).all() for colors in (nearest.colors, ruled.colors))
            unsure = piece in ruled.unsure
            found.update({
                "pieces": 1, "nearest right": int(before), "rule right": int(after),
                "became right": int(after and not before), "became wrong": int(before and not after),
                "unsure": int(unsure), "unsure and wrong": int(unsure and not after),
            })
        return found


if __name__ == "__main__":
    main()
