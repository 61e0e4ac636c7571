"""Draw the loss curves of a training run: `python -m benchmarks.curve RUN docs/mini-curve.svg`.

One panel for each stage: what was minimized, on the drawings that are learned from (gray) and on those that never are
(black), over the steps; and about how long it took.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT, GAP = 200, 120, 34   # of a panel, and between panels
LEARNED, CHECKED = "#9aa0a6", "#111111"


@dataclass(frozen=True)
class Curve:
    """One stage of a run."""

    name: str
    learned: Sequence[tuple[int, float]]   # step, running mean of the loss
    checked: Sequence[tuple[int, float]]   # step, loss on what is never learned from
    hours: float                           # about

    @property
    def steps(self) -> int:
        """Steps that were done."""
        return self.learned[-1][0]


def read_curves(run: Path) -> list[Curve]:
    """Read all stages of a run's folder, in their order."""
    files = sorted(run.glob("*-*/curve.jsonl"), key=lambda file: int(file.parent.name.partition("-")[0]))
    return [curve_of(file.parent.name.partition("-")[2], [json.loads(line) for line in file.read_text().splitlines()])
            for file in files]


def curve_of(name: str, lines: Sequence[Mapping[str, float]]) -> Curve:
    """Sum the lines of a curve up. Each says how many seconds a step took so far, since training was last begun."""
    learned = [(int(line["step"]), line["loss"]) for line in lines if "loss" in line]
    checked = [(int(line["step"]), line["check_loss"]) for line in lines if "check_loss" in line]
    seconds, before = 0.0, 0
    for line in lines:
        seconds += (line["step"] - before) * line["seconds_per_step"]
        before = int(line["step"])
    return Curve(name, learned, checked, seconds / 3600)


def picture(curves: Sequence[Curve]) -> str:
    """Give the panels side by side, as SVG."""
    width, height = len(curves) * (WIDTH + GAP) + GAP, HEIGHT + 76
    body = "".join(
        f'<g transform="translate({GAP + place * (WIDTH + GAP)} 40)">{panel(curve)}</g>'
        for place, curve in enumerate(curves)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'
    )


def panel(curve: Curve) -> str:
    """Give one stage: its name, steps and hours above, the lines below, the least and largest loss at their heights."""
    values = [value for _, value in (*curve.learned, *curve.checked)]
    low, high = min(values), max(values)

    def line(points: Sequence[tuple[int, float]], color: str) -> str:
        places = " ".join(
            f"{WIDTH * step / curve.steps:.1f},{HEIGHT * (high - value) / ((high - low) or 1):.1f}"
            for step, value in points
        )
        return f'<polyline points="{places}" fill="none" stroke="{color}" stroke-width="1.5"/>'

    hours = f"{curve.hours:.1f} h" if curve.hours >= 1 else f"{60 * curve.hours:.0f} min"
    return (
        f'<text y="-22" font-weight="bold">{escape(curve.name)}</text>'
        f'<text y="-8">{curve.steps} steps, {hours}</text>'
        f'<path d="M0 0V{HEIGHT}H{WIDTH}" fill="none" stroke="#ccc"/>'
        + line(curve.learned, LEARNED) + line(curve.checked, CHECKED)
        + f'<text x="4" y="10" fill="#666">{high:.3g}</text><text x="4" y="{HEIGHT - 4}" fill="#666">{low:.3g}</text>'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("svg", type=Path)
    arguments = parser.parse_args()
    curves = read_curves(arguments.run)
    arguments.svg.write_text(picture(curves), encoding="utf-8")
    for curve in curves:
        print(f"{curve.name}: {curve.steps} steps, {curve.hours:.2f} h, loss {curve.learned[-1][1]:.4f}"
              + (f", on unseen drawings {curve.checked[-1][1]:.4f}" if curve.checked else ""))


if __name__ == "__main__":
    main()
