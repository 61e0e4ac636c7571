"""An evaluation, or several side by side, as one HTML page that needs nothing beside it and no network."""

import base64
import heapq
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorcli.train.evaluation.evaluate import EvaluationRow, FrameResult, Group, Pairing
from colorcli.train.evaluation.file import Comparison, Difference
from colorcli.train.evaluation.scores.table import Column, column_of, in_words

Float = NDArray[np.float32]

THUMBNAIL = 220          # longer side of a small picture, pixels
WORST = 12               # frames that are shown of each pairing
ROWS_SHOWN = 400         # of the table of shots
# What a frame is called bad by: the first of these that was measured.
BLAME = ("accuracy", "psnr", "line_agreement", "image_similarity", "ms_ssim", "tag_agreement")
ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}
DIRECTIONS = {"higher": "higher is better", "lower": "lower is better", "neither": "for orientation"}
PAIRINGS = {
    "own": "own: with the key of the shot itself",
    "cross": "cross: with the key of another shot of the same character",
    "shuffled": "shuffled: with the key of another, as the papers measure",
}

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --soft: #66666b; --paper: #fbfbf9; --edge: #d9d9d4; --row: #f2f2ee;
  --good: #14713d; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e6; --soft: #a0a0a4; --paper: #17181a; --edge: #36383c;
  --row: #1f2124; --good: #6fd39a; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 28px 24px 64px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 8px; }
p, .soft { color: var(--soft); margin: 4px 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 12px 5px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--edge); }
th { font-weight: 600; } tbody th { min-width: 150px; } td.n, th.n { text-align: right; white-space: nowrap; }
td.what { color: var(--soft); font-size: 13px; min-width: 320px; }
tbody tr:hover { background: var(--row); }
.good { color: var(--good); } .bad { color: var(--bad); }
.frames { display: grid; grid-template-columns: repeat(auto-fill, minmax(480px, 1fr)); gap: 18px; }
figure { margin: 0; padding: 10px; border: 1px solid var(--edge); border-radius: 6px; }
figcaption { font-size: 13px; overflow-wrap: anywhere; }
.four { display: grid; grid-template-columns: repeat(4, 1fr); gap: 6px; margin-top: 8px; }
.four div { font-size: 12px; color: var(--soft); text-align: center; }
.four img { width: 100%; display: block; background: #fff; border-radius: 3px; }
pre { overflow-x: auto; padding: 12px; background: var(--row); border-radius: 6px; font-size: 12px; }
@media (max-width: 560px) { .frames { grid-template-columns: 1fr; } }
"""


@dataclass(frozen=True)
class Snapshot:
    """A frame as the page shows it."""

    title: str
    note: str                                # the score that it is here for
    pictures: tuple[tuple[str, bytes], ...]  # what it is, and a JPEG


@dataclass
class WorstFrames:
    """Keeps the worst frames of each pairing, small, while an evaluation runs."""

    count: int = WORST
    _kept: dict[Pairing, list[tuple[float, int, Snapshot]]] = field(default_factory=dict)
    _seen: int = 0

    def add(self, result: FrameResult) -> None:
        """Look at a finished frame."""
        blame = next((key for key in BLAME if result.scores.get(key) is not None), None)
        score = result.scores[blame] if blame else None
        if blame is None or score is None:
            return
        self._seen += 1
        kept = self._kept.setdefault(result.pairing, [])
        if len(kept) == self.count and -score <= kept[0][0]:
            return
        with_key = "" if result.pairing == "own" else f", key of {result.key}"
        frame = "" if result.frame == result.shot else f" {result.frame}"
        pictures = (("line", result.line), ("key", result.reference), ("result", result.made), ("truth", result.truth))
        snapshot = Snapshot(
            f"{result.shot}{frame}{with_key}", f"{column_of(blame).title} {in_words(blame, score)}",
            tuple((name, thumbnail(picture)) for name, picture in pictures),
        )
        # The heap's first is the best of those kept; of two that are alike the earlier one stays.
        heapq.heappush(kept, (-score, -self._seen, snapshot))
        if len(kept) > self.count:
            heapq.heappop(kept)

    def of(self, pairing: Pairing) -> list[Snapshot]:
        """Give the frames of a pairing, the worst first."""
        return [snapshot for *_, snapshot in sorted(self._kept.get(pairing, []), key=lambda kept: kept[:2])[::-1]]


def thumbnail(picture: Float) -> bytes:
    """Shrink a picture (H, W, 3) in 0..1 to a small JPEG."""
    scale = min(1.0, THUMBNAIL / max(picture.shape[:2]))
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    stream = io.BytesIO()
    Image.fromarray(np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8)).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def evaluation_page(
    rows: Sequence[EvaluationRow], groups: Sequence[Group], summary: Mapping[str, Any], worst: WorstFrames
) -> str:
    """Make the page of one evaluation."""
    model, data, preset = summary["model"], summary["data"], summary["preset"]
    frames = sum(group.frames for group in groups)
    parts = [
        f"<h1>{escape(str(model['asked']))} on {escape(str(data.get('name', data.get('path'))))}</h1>",
        f"<p>{escape(str(model['name']))}, weights {model['sha256'][:12]}, preset {escape(preset['name'])}, "
        f"{frames} frames colored, {escape(summary['date'])}</p>",
        _instruments(summary),
        *(f"<p class=bad>{escape(note)}</p>" for note in summary["notes"]),
        "<h2>Summary</h2>",
        _summary_table(groups),
        "<h2>Worst frames</h2>",
        *_worst(groups, worst),
        "<h2>Every shot</h2>",
        _row_table(rows),
        "<h2>To make it again</h2>",
        f"<details><summary>settings, versions, hashes</summary><pre>"
        f"{escape(json.dumps(summary, indent=1, ensure_ascii=False))}</pre></details>",
    ]
    if summary["skipped"]:
        listed = "".join(f"<li>{escape(reason)}</li>" for reason in summary["skipped"][:50])
        parts.insert(3, f"<p class=bad>{len(summary['skipped'])} could not be read</p><ul>{listed}</ul>")
    return _page(f"colorcli evaluate: {model['asked']}", parts)


def comparison_page(comparison: Comparison) -> str:
    """Make the page of several evaluations side by side."""
    parts = [
        f"<h1>{escape(' · '.join(comparison.names))}</h1>",
        f"<p>Changes are against {escape(comparison.names[0])}; ± is the standard error over the shots that both have. "
        "A change in color is more than two of them.</p>",
        *(f"<p class=bad>{escape(note)}</p>" for note in comparison.notes),
    ]
    for pairing in dict.fromkeys(score.pairing for score in comparison.scores):
        scores = [score for score in comparison.scores if score.pairing == pairing]
        head = "".join(f"<th class=n>{escape(name)}</th>" for name in comparison.names)
        body = "".join(
            f"<tr>{_title(column_of(score.key))}"
            + "".join(f"<td class=n>{difference_cell(score.key, value)}</td>" for value in score.values)
            + f"<td class=what>{escape(column_of(score.key).definition)}</td></tr>"
            for score in scores if any(value.value is not None for value in score.values)
        )
        parts += [
            f"<h2>{escape(PAIRINGS.get(pairing, pairing))}</h2>",
            f"<div class=wide><table><thead><tr><th></th>{head}<th>what it is</th></tr></thead>"
            f"<tbody>{body}</tbody></table></div>",
        ]
    return _page("colorcli evaluate: " + " · ".join(comparison.names), parts)


def difference_cell(key: str, found: Difference) -> str:
    """A score of a comparison as HTML: the value, and the change below it."""
    value = in_words(key, found.value)
    if found.change is None:
        return value
    error = "" if found.error is None else f" ± {in_words(key, found.error)}"
    mark = "" if found.better is None or not found.sure else " class=good" if found.better else " class=bad"
    sign = "+" if found.change >= 0 else "−"
    return f"{value}<br><small{mark}>{sign}{in_words(key, abs(found.change))}{error}</small>"


def _instruments(summary: Mapping[str, Any]) -> str:
    """Say by which networks was measured."""
    told = []
    if summary["judge"]:
        told.append(f"judge {summary['judge']['name']} {summary['judge']['sha256'][:12]}")
    if summary["similarity"]:
        told.append(f"image similarity by {summary['similarity']}")
    if summary["features"]:
        told.append(f"FID by {summary['features']['name']} at {summary['features']['size']} pixels")
    return f"<p>{escape(', '.join(told))}</p>" if told else ""


def _summary_table(groups: Sequence[Group]) -> str:
    head = "".join(f"<th class=n>{group.pairing}<br><small>{group.frames} frames</small></th>" for group in groups)
    body = "".join(
        f"<tr>{_title(column_of(key))}"
        + "".join(f"<td class=n>{_with_truth(key, group)}</td>" for group in groups)
        + f"<td class=what>{escape(column_of(key).definition)}</td></tr>"
        for key in dict.fromkeys(key for group in groups for key in group.scores)
        if any(group.scores.get(key) is not None for group in groups)
    )
    return (f"<div class=wide><table><thead><tr><th></th>{head}<th>what it is</th></tr></thead>"
            f"<tbody>{body}</tbody></table></div>")


def _with_truth(key: str, group: Group) -> str:
    """A score, and below it what the truth itself would get, where that was measured."""
    value, truth = in_words(key, group.scores.get(key)), group.truth.get(key)
    return value if truth is None else f"{value}<br><small class=soft>truth {in_words(key, truth)}</small>"


def _title(column: Column) -> str:
    direction = f"<span class=soft title='{DIRECTIONS[column.better]}'>{ARROWS[column.better]}</span>"
    return f"<th>{escape(column.title)} {direction}</th>"


def _worst(groups: Sequence[Group], worst: WorstFrames) -> Iterable[str]:
    shown = [(group.pairing, worst.of(group.pairing)) for group in groups]
    if not any(snapshots for _, snapshots in shown):
        yield "<p>Nothing was measured that tells one frame from another.</p>"
    for pairing, snapshots in shown:
        if snapshots:
            yield f"<p>{escape(PAIRINGS[pairing])}</p>"
            yield f"<div class=frames>{''.join(_figure(snapshot) for snapshot in snapshots)}</div>"


def _figure(snapshot: Snapshot) -> str:
    pictures = "".join(
        f"<div><img alt='{name}' src='data:image/jpeg;base64,{base64.b64encode(data).decode()}'>{name}</div>"
        for name, data in snapshot.pictures
    )
    return (f"<figure><figcaption><b>{escape(snapshot.note)}</b> {escape(snapshot.title)}</figcaption>"
            f"<div class=four>{pictures}</div></figure>")


def _row_table(rows: Sequence[EvaluationRow]) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row.scores))
    head = "".join(f"<th class=n>{escape(column_of(key).title)} {ARROWS[column_of(key).better]}</th>" for key in keys)
    body = "".join(
        f"<tr><td>{escape(row.shot)}</td><td>{escape(row.key)}</td><td>{row.pairing}</td><td class=n>{row.frames}</td>"
        + "".join(f"<td class=n>{in_words(key, row.scores.get(key))}</td>" for key in keys) + "</tr>"
        for row in rows[:ROWS_SHOWN]
    )
    more = f"<p>and {len(rows) - ROWS_SHOWN} more, which --json has</p>" if len(rows) > ROWS_SHOWN else ""
    return (f"<div class=wide><table><thead><tr><th>shot</th><th>key</th><th>pair</th><th class=n>frames</th>"
            f"{head}</tr></thead><tbody>{body}</tbody></table></div>{more}")


def _page(title: str, parts: Iterable[str]) -> str:
    return (
        f"<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>"
        f"<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
