"""An evaluation on disk, as `evaluate --json` prints it, and several of them side by side."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from colorcli.errors import UsageError
from colorcli.presets import Preset
from colorcli.settings import flattened
from colorcli.shot.engine import Colorizer, library_versions
from colorcli.shot.manifest import ModelEntry
from colorcli.train.evaluation.evaluate import Evaluation, Plan, notes_on
from colorcli.train.evaluation.scores.frames import Instruments
from colorcli.train.evaluation.scores.table import column_of, in_words

SCHEMA = "colorcli/evaluation/1"
LEGEND = "changes are against {}; ± standard error over the shots that both have; * more than two of them"
SURE = 2.0   # a difference of so many standard errors is more than chance


def summary_of(
    evaluation: Evaluation,
    *,
    data: Mapping[str, Any],
    preset_name: str,
    preset: Preset,
    model: ModelEntry,
    plan: Plan,
    instruments: Instruments,
    colorizer: Colorizer,
) -> dict[str, Any]:
    """Give all that it takes to make an evaluation again, and what came out of it, as plain values.

    data: what was measured: "kind", "path", "limit" and so on.
    """
    versions = library_versions()
    if "fid" in plan.metrics or "psnr" in plan.metrics or "ms-ssim" in plan.metrics:
        versions["torchmetrics"] = metadata.version("torchmetrics")
    judge: dict[str, Any] | None = None
    if instruments.asks_judge(plan.metrics):
        judge = {"name": instruments.judge.name, "sha256": instruments.judge.sha256}
    features: dict[str, Any] | None = None
    if "fid" in plan.metrics:
        network = instruments.network
        features = {
            "name": network.name, "sha256": network.sha256, "size": network.side, "values": network.values,
            "resizing": "arXiv:2104.11222, bicubic, antialiased, to a square",
        }
    return {
        "schema": SCHEMA,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {**data, "sha256": evaluation.digest},
        "model": {"name": model.name, "asked": preset.model, "sha256": model.sha256, "license": model.license},
        "preset": {"name": preset_name, "settings": preset.model_dump(mode="json")},
        "plan": asdict(plan) | {"metrics": list(plan.metrics)},
        "judge": judge,
        "features": features,
        "similarity": instruments.similarity_by if "similarity" in plan.metrics else None,
        "device": dict(colorizer.describe()),
        "versions": versions,
        "rows": len(evaluation.rows),
        "skipped": list(evaluation.skipped),
        "seconds": round(evaluation.seconds, 2),
        "groups": [asdict(group) for group in evaluation.groups],
        "notes": notes_on(evaluation.groups),
    }


@dataclass(frozen=True)
class SavedEvaluation:
    """What `evaluate --json` printed."""

    name: str                              # of its file, without the ending
    rows: tuple[Mapping[str, Any], ...]
    summary: Mapping[str, Any]


def read_evaluation(path: Path) -> SavedEvaluation:
    """Read what `evaluate --json` printed into a file. Raises UsageError if it is missing, no such file, or cut off."""
    hint = f"make one with: colorcli evaluate DATA --json > {path.name}"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}", hint=hint) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"{path} cannot be read: {problem}", hint=hint) from None
    rows: list[Mapping[str, Any]] = []
    summary: Mapping[str, Any] | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            raise UsageError(f"line {number} of {path.name} is no JSON", hint=hint) from None
        if isinstance(value, dict) and isinstance(value.get("summary"), dict):
            summary = value["summary"]
        elif isinstance(value, dict) and isinstance(value.get("shot"), str):
            rows.append(value)
        else:
            raise UsageError(f"line {number} of {path.name} is no row of an evaluation", hint=hint)
    if summary is None:
        raise UsageError(f"{path.name} has no summary at its end", hint="the evaluation was stopped: run it again")
    if summary.get("schema") != SCHEMA or not isinstance(summary.get("groups"), list):
        raise UsageError(f"{path.name} has schema {summary.get('schema')}, this colorcli reads {SCHEMA}", hint=hint)
    return SavedEvaluation(path.stem, tuple(rows), summary)


@dataclass(frozen=True)
class Difference:
    """One score of an evaluation beside the same of the first one."""

    value: float | None
    change: float | None = None      # against the first evaluation
    error: float | None = None       # standard error of the change, over the rows that both have
    better: bool | None = None       # None: neither, or not told

    @property
    def sure(self) -> bool:
        """Whether the change is more than two standard errors."""
        return self.change is not None and self.error is not None and abs(self.change) > SURE * self.error


@dataclass(frozen=True)
class ComparedScore:
    """One score of one pairing in all evaluations."""

    pairing: str
    key: str
    values: tuple[Difference, ...]


@dataclass(frozen=True)
class Comparison:
    """Several evaluations side by side; the first is what the others are held against."""

    names: tuple[str, ...]
    scores: tuple[ComparedScore, ...]
    notes: tuple[str, ...]           # why numbers may not be comparable

    def as_dicts(self) -> list[dict[str, Any]]:
        """A plain value for each score, for JSON."""
        return [
            {"pairing": score.pairing, "score": score.key, "evaluations": [
                {"name": name, **asdict(value), "sure": value.sure}
                for name, value in zip(self.names, score.values, strict=True)
            ]}
            for score in self.scores
        ]


def compare(evaluations: Sequence[SavedEvaluation]) -> Comparison:
    """Put evaluations side by side. Raises UsageError for less than two."""
    if len(evaluations) < 2:
        raise UsageError("--compare needs two evaluations or more", hint="colorcli evaluate --compare A.json B.json")
    groups = [{group["pairing"]: group["scores"] for group in each.summary["groups"]} for each in evaluations]
    scores = []
    for pairing in dict.fromkeys(pairing for group in groups for pairing in group):
        for key in dict.fromkeys(key for group in groups for key in group.get(pairing, {})):
            values = [group.get(pairing, {}).get(key) for group in groups]
            found = [
                _difference(key, values[0], value, _changes(evaluations[0], each, pairing, key))
                for value, each in zip(values[1:], evaluations[1:], strict=True)
            ]
            scores.append(ComparedScore(pairing, key, (Difference(values[0]), *found)))
    return Comparison(_names(evaluations), tuple(scores), tuple(_notes(evaluations)))


def comparison_markdown(comparison: Comparison) -> str:
    """Several evaluations as tables in Markdown, for a README: one for each pairing."""
    parts = []
    for pairing in dict.fromkeys(score.pairing for score in comparison.scores):
        lines = [f"| {pairing} | {' | '.join(comparison.names)} |", "|---|" + "---|" * len(comparison.names)]
        for score in comparison.scores:
            if score.pairing == pairing and any(value.value is not None for value in score.values):
                cells = " | ".join(compared_cell(score.key, value) for value in score.values)
                lines.append(f"| {column_of(score.key).in_words} | {cells} |")
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, LEGEND.format(comparison.names[0])]) + "\n"


def compared_cell(key: str, found: Difference) -> str:
    """A score as a cell: "0.846 (+0.012 ± 0.005)", with a star where the change is more than two standard errors."""
    value = in_words(key, found.value)
    if found.change is None:
        return value
    error = "" if found.error is None else f" ± {in_words(key, found.error)}"
    sign = "+" if found.change >= 0 else "-"
    return f"{value} ({sign}{in_words(key, abs(found.change))}{error}){'*' if found.sure else ''}"


def _difference(key: str, base: float | None, value: float | None, changes: Sequence[float]) -> Difference:
    if base is None or value is None:
        return Difference(value)
    change, better = value - base, column_of(key).better
    error = float(np.std(changes, ddof=1)) / math.sqrt(len(changes)) if len(changes) > 1 else None
    told = change != 0 and better != "neither"
    return Difference(value, change, error, (change > 0) == (better == "higher") if told else None)


def _changes(base: SavedEvaluation, other: SavedEvaluation, pairing: str, key: str) -> list[float]:
    """The change of a score in every row that two evaluations share."""
    known = {(row["shot"], row.get("key")): row.get(key) for row in base.rows if row.get("pairing") == pairing}
    pairs = [
        (known.get((row["shot"], row.get("key"))), row.get(key)) for row in other.rows if row.get("pairing") == pairing
    ]
    return [float(after) - float(before) for before, after in pairs if before is not None and after is not None]


def _names(evaluations: Sequence[SavedEvaluation]) -> tuple[str, ...]:
    """Names by which evaluations can be told apart."""
    names = [each.name for each in evaluations]
    return tuple(name if names.count(name) == 1 else f"{name} {number}" for number, name in enumerate(names, start=1))


def _notes(evaluations: Sequence[SavedEvaluation]) -> list[str]:
    """Say what is not the same, and so may be the reason of a difference."""
    notes = []
    base = evaluations[0]
    for each in evaluations[1:]:
        both = f"{each.name} and {base.name}"
        if _at(each, "data", "sha256") != _at(base, "data", "sha256"):
            notes.append(f"{both} did not measure the same pictures")
        if _at(each, "judge", "sha256") != _at(base, "judge", "sha256"):
            notes.append(f"{both} were not looked at by the same judge")
        if _at(each, "similarity") != _at(base, "similarity"):
            notes.append(f"image similarity is by {_at(base, 'similarity')} in {base.name}, "
                         f"by {_at(each, 'similarity')} in {each.name}")
        ours, theirs = (flattened(_at(one, "preset", "settings") or {}) for one in (base, each))
        other = [
            f"{path} {ours.get(path)} / {theirs.get(path)}"
            for path in sorted(ours.keys() | theirs.keys()) if path != "model" and ours.get(path) != theirs.get(path)
        ]
        if other:
            notes.append(f"{base.name} / {each.name}: " + ", ".join(other))
        versions = [name for name in ("torch", "colorcli")
                    if _at(each, "versions", name) != _at(base, "versions", name)]
        if versions:
            notes.append(f"{both} ran with another {' and '.join(versions)}")
    return notes


def _at(evaluation: SavedEvaluation, *path: str) -> Any:
    value: Any = evaluation.summary
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
