"""What each part of the training is good for: `python -m benchmarks.ablation` trains and measures every row of a table.

All rows begin from one model and learn for as many steps with the same seed, drawings and noise; what differs is in
ROWS. A row that is done is not done again, and one that was killed goes on: run the same command. Processes can share
the rows by naming them; `--table` puts together what they have made.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import machine, note
from colorcli.loading import load_pipeline
from colorcli.model.build import Components
from colorcli.model.weights import family_of, weights_digest, weights_folder
from colorcli.pipeline import ColorizePipeline
from colorcli.presets import load_preset
from colorcli.shot.engine import model_entry
from colorcli.train.data.characters import CharacterSet, draw_shards
from colorcli.train.data.validation import write_validation_shots
from colorcli.train.evaluation.evaluate import Plan, evaluate
from colorcli.train.evaluation.file import (
    SCHEMA,
    ComparedScore,
    Comparison,
    SavedEvaluation,
    compare,
    compared_cell,
    read_evaluation,
    summary_of,
)
from colorcli.train.evaluation.scores.frames import Instruments
from colorcli.train.evaluation.truths import find_known_shots
from colorcli.train.objectives.mini import colorizer_losses, make_color_batch
from colorcli.train.recipe import Recipe, StageSection, read_recipe, runs_folder
from colorcli.train.run.checkpoint import Checkpoint
from colorcli.train.run.loop import VALIDATION_SEED, train
from colorcli.train.run.progress import Lines
from colorcli.train.sections import AblationSection, GramSection
from colorcli.train.turn import Turn
from colorcli.variants import VARIANTS

RECIPE = Path(__file__).parent.parent / "recipes" / "mini-ablation.yaml"
STAGE = "colorizer"
PRESET = "cel"


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    words: str
    changes: tuple[str, ...] = ()   # of the recipe, below the stage: "gram.weight=0"
    tagger: bool = True             # False: its tokens are zero where the row is measured, too
    trained: bool = True            # False: the model that all others begin from

    def overrides(self, name: str, seed: int) -> tuple[str, ...]:
        """Give what is laid over the recipe."""
        return f"name={name}", f"seed={seed}", *(f"stages.{STAGE}.{change}" for change in self.changes)


NO_GRAM, NO_TAGGER, OTHER, SAME = (
    "gram.weight=0", "ablation.tagger=false", "ablation.reference=other", "ablation.reference=same",
)
ROWS: dict[str, Row] = {
    "full": Row("full: Gram loss, tagger, mostly another pose as the reference"),
    "no-gram": Row("without the Gram loss", (NO_GRAM,)),
    "no-tagger": Row("without the tagger", (NO_TAGGER,), tagger=False),
    "no-tagger-no-gram": Row("without the tagger and the Gram loss", (NO_TAGGER, NO_GRAM), tagger=False),
    "other": Row("the reference is always another pose", (OTHER,)),
    "same": Row("the reference is the drawing itself, without the Gram loss", (SAME, NO_GRAM)),
    "same-gram": Row("the reference is the drawing itself, with the Gram loss", (SAME,)),
    "start": Row("the model that all begin from", trained=False),
    "start-no-tagger": Row("the same, its tagger taken away", tagger=False, trained=False),
}


@dataclass(frozen=True)
class Test:
    """Something that every row is measured on: characters of families that no row has seen."""

    words: str
    metrics: tuple[str, ...]
    characters: int
    settings: tuple[str, ...] = ()   # laid over the preset
    moving: bool = False     # the key shows the same pose and view
    shuffled: bool = False   # strangers' keys too


# From pure noise: beginning from the color match would hide what the network itself has learned.
NOISE = ("sampling.start=noise", "sampling.steps=8")
TESTS: dict[str, Test] = {
    "noise": Test("from noise", ("regions", "lines", "tags", "fid", "drift"), 24, NOISE, shuffled=True),
    "moving": Test("from noise, same pose", ("regions",), 12, NOISE, moving=True),
    "match": Test("as a render begins", ("regions", "lines"), 12),
    # What the network says of the same noised drawings in all rows: few numbers by chance, no picture.
    "loss": Test("denoising", ("loss",), 20),
}
BATCHES = 24   # of 4 drawings each; in all rows the same ones, noise and times too


@dataclass(frozen=True)
class Column:
    """A number in the table."""

    title: str
    test: str
    pairing: str
    score: str       # its beginning: FID has the name of its network behind it


COLUMNS = (
    Column("right regions ↑", "noise", "own", "accuracy"),
    Column("same pose ↑", "moving", "own", "accuracy"),
    Column("with color match ↑", "match", "own", "accuracy"),
    Column("part colors ↓", "noise", "own", "part_colors"),
    Column("tags ↑", "noise", "own", "tag_agreement"),
    Column("lines ↑", "noise", "own", "line_agreement"),
    Column("drift ↓", "noise", "own", "drift"),
    Column("FID ↓", "noise", "own", "fid"),
    Column("FID, strangers' keys ↓", "noise", "shuffled", "fid"),
    Column("KID, strangers' keys ↓", "noise", "shuffled", "kid"),
    Column("denoising loss ↓", "loss", "own", "diffusion"),
    Column("use of the key ↑", "loss", "own", "reference"),
    Column("Gram distance ↓", "loss", "own", "gram"),
)


class Clock(Lines):
    """Tells little, and takes the seconds that the processors have worked at every step."""

    def __init__(self) -> None:
        super().__init__(note)
        self.times: list[float] = []

    def step(self, news: Any) -> None:
        """Take the time."""
        self.times.append(time.process_time())

    @property
    def per_step(self) -> float | None:
        """Seconds of a step; other programs on the machine hardly change them. None: too few steps."""
        spans = [after - before for before, after in zip(self.times, self.times[1:], strict=False)]
        return round(median(spans), 3) if spans else None


def run_row(name: str, seed: int, recipe: Recipe, changes: Sequence[str], tests: Sequence[str]) -> None:
    """Train a row and measure it, as far as that is not done."""
    row, run = ROWS[name], run_of(recipe, name, seed)
    missing = [test for test in tests if not result_file(recipe, name, seed, test).exists()]
    if not missing:
        return
    if row.trained and not (run / "done.json").exists():
        lend_drawings(recipe, run)
        clock = Clock()
        train(
            RECIPE, note, only=STAGE, start_from=weights_folder("mini"), device="cpu",
            changes=(*changes, *row.overrides(run.name, seed)), progress=clock,
        )
        steps = Checkpoint(run / f"1-{STAGE}").step()
        told = {"steps": steps, "seconds_per_step": clock.per_step}
        (run / "done.json").write_text(json.dumps(told) + "\n")
    pipeline = load_pipeline(str(run / "model") if row.trained else "mini", "cpu", precision="fp32")
    # Rows are trained without the matcher, which learns from the finished networks of each.
    pipeline.register_modules(matcher=None)
    if not row.tagger:
        assert pipeline.projection is not None
        pipeline.projection.register_forward_pre_hook(without_tagger)
    for test in missing:
        file = result_file(recipe, name, seed, test)
        if test == "loss":
            measure_losses(Components.of(pipeline), row, recipe, file)
        else:
            measure(pipeline, TESTS[test], recipe, file)
        note(f"{name}, seed {seed}: {TESTS[test].words} is measured")


def without_tagger(module: nn.Module, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Give the projection of tokens zeros for the tagger's, as the row was trained."""
    clip, tags = inputs
    return clip, torch.zeros_like(tags)


def measure(pipeline: ColorizePipeline, test: Test, recipe: Recipe, file: Path) -> None:
    """Measure a model, and write the file that `colorcli evaluate --json` would."""
    folder = runs_folder() / recipe.name / f"shots-{'moving' if test.moving else 'generated'}-{test.characters}"
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}")
        write_validation_shots(partial, test.characters, frames=1, moving=test.moving)
        partial.rename(folder)
    preset = load_preset(PRESET, test.settings, family_of)
    variant = replace(VARIANTS["mini"], canvas_area=recipe.drawings.side**2)
    plan, instruments = Plan(test.metrics, shuffled=test.shuffled), Instruments()
    found = evaluate(find_known_shots(folder), preset, variant, pipeline, plan, instruments)
    summary = summary_of(
        found, data={"kind": test.words, "characters": test.characters}, preset_name=PRESET, preset=preset,
        model=model_entry("mini"), plan=plan, instruments=instruments, colorizer=pipeline,
    )
    write_result(file, [row.as_dict() for row in found.rows], summary)


def measure_losses(components: Components, row: Row, recipe: Recipe, file: Path) -> None:
    """Measure how well noise is told from drawings of families never seen, with another pose as the reference.

    Beside it: how much worse with a stranger's reference, and how far that one moves the Gram matrices.
    """
    drawings = recipe.drawings
    shards = draw_shards(
        runs_folder() / recipe.name / "drawings", drawings.validation_characters, drawings.poses, True, note,
        drawings.side,
    )
    known = CharacterSet(shards)
    options = StageSection(
        name=STAGE, steps=1, batch=4, rate=1.0, gram=GramSection(weight=1.0),
        ablation=AblationSection(tagger=row.tagger, reference="other"),
    )
    components.freeze()
    found = [losses_of(components, known, Turn(VALIDATION_SEED, "ablation", number), options)
             for number in range(BATCHES)]
    rows = [{"shot": f"batch {number}", "key": "", "pairing": "own", **scores} for number, scores in enumerate(found)]
    means = {key: fmean(scores[key] for scores in found) for key in found[0]}
    write_result(file, rows, {"schema": SCHEMA, "groups": [{"pairing": "own", "scores": means}]})


@torch.no_grad()
def losses_of(components: Components, known: CharacterSet, turn: Turn, options: StageSection) -> dict[str, float]:
    """Give the numbers of one batch, in thousandths."""
    batch = make_color_batch(known, turn, options.batch, options)
    own = colorizer_losses(components, batch, turn, options)
    strange = replace(batch, reference=batch.reference.roll(1, 0))
    apart = colorizer_losses(components, strange, turn, replace_gram(options, 0.0))["diffusion"] - own["diffusion"]
    numbers = {"diffusion": own["diffusion"], "reference": apart, "gram": own["gram"], "parts": own["accuracy"]}
    return {name: 1000 * float(value) for name, value in numbers.items()}


def replace_gram(options: StageSection, weight: float) -> StageSection:
    """The same options with another weight of the Gram loss."""
    return options.model_copy(update={"gram": options.gram.model_copy(update={"weight": weight})})


def write_result(file: Path, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    """Write what was measured as `colorcli evaluate --json` prints it, whole or not at all."""
    lines = [*rows, {"summary": summary}]
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")
    partial.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    partial.rename(file)


def lend_drawings(recipe: Recipe, run: Path) -> None:
    """Let a run find the drawings of all rows, and draw into them."""
    drawings = runs_folder() / recipe.name / "drawings"
    drawings.mkdir(parents=True, exist_ok=True)
    run.mkdir(parents=True, exist_ok=True)
    if not (run / "drawings").exists():
        (run / "drawings").symlink_to(drawings, target_is_directory=True)


def run_of(recipe: Recipe, row: str, seed: int) -> Path:
    """Give the folder of a row's run."""
    return runs_folder() / f"{recipe.name}-{row}-{seed}"


def result_file(recipe: Recipe, row: str, seed: int, test: str) -> Path:
    """Give the file of what a test has measured."""
    return runs_folder() / recipe.name / "results" / f"{row}-{seed}.{test}.json"


# --- the table -----------------------------------------------------------------------------------------------------


def together(evaluations: Sequence[SavedEvaluation]) -> SavedEvaluation:
    """Put the evaluations of several seeds together: all rows, told apart by their seed, and the means of the sets."""
    rows = tuple(
        {**row, "shot": f"{row['shot']}, {number}"} for number, each in enumerate(evaluations) for row in each.rows
    )
    first = evaluations[0].summary
    groups = []
    for place, group in enumerate(first["groups"]):
        several = [each.summary["groups"][place]["scores"] for each in evaluations]
        scores = {key: mean_of([scores.get(key) for scores in several]) for key in group["scores"]}
        groups.append({**group, "scores": scores})
    return SavedEvaluation(evaluations[0].name, rows, {**first, "groups": groups})


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of those that are there; None if none is."""
    there = [value for value in values if value is not None]
    return fmean(there) if there else None


def markdown(rows: Sequence[str], found: Mapping[str, Sequence[ComparedScore]], columns: Sequence[Column]) -> str:
    """Give the table: the first of `rows` is what the others are held against. found: by test, a value for each row."""
    lines = [
        "| " + " | ".join(("", *(column.title for column in columns))) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for place, name in enumerate(rows):
        cells = [ROWS[name].words if name in ROWS else name]
        for column in columns:
            score = next((score for score in found.get(column.test, ())
                          if score.pairing == column.pairing and named(score.key, column.score)), None)
            cells.append("-" if score is None else compared_cell(score.key, score.values[place]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def named(key: str, score: str) -> bool:
    """Tell whether a key is a score's, with or without the name of a network behind it."""
    return key == score or key.startswith(f"{score} (")


def results(
    recipe: Recipe, rows: Sequence[str], seeds: Sequence[int], tests: Sequence[str]
) -> tuple[list[str], dict[str, Comparison], dict[str, Any]]:
    """Read what is measured: the rows of which all tests and seeds are there, their comparison, all as plain values."""
    whole = [name for name in rows if all(
        result_file(recipe, name, seed, test).exists() for seed in seeds_of(name, seeds) for test in tests
    )]
    compared: dict[str, Comparison] = {}
    for test in tests:
        several = [
            together([replace(read_evaluation(result_file(recipe, name, seed, test)), name=name)
                      for seed in (seeds_of(name, seeds) * len(seeds))[:len(seeds)]])
            for name in whole
        ]
        if len(several) > 1:
            compared[test] = compare(several)
    runs = {}
    for name in whole:
        told = [json.loads((run_of(recipe, name, seed) / "done.json").read_text()) if ROWS[name].trained else {}
                for seed in seeds_of(name, seeds)]
        by_seed = {
            column.title: [value_of(read_evaluation(result_file(recipe, name, seed, column.test)), column)
                                for seed in seeds_of(name, seeds)]
            for column in COLUMNS if column.test in tests
        }
        runs[name] = {"words": ROWS[name].words, "changes": list(ROWS[name].changes), "runs": told, "seeds": by_seed}
    plain = {test: comparison.as_dicts() for test, comparison in compared.items()}
    return whole, compared, {"rows": runs, "compared": plain}


def seeds_of(row: str, seeds: Sequence[int]) -> list[int]:
    """Give the seeds of a row: what is not trained has one."""
    return list(seeds) if ROWS[row].trained else [0]


def value_of(evaluation: SavedEvaluation, column: Column) -> float | None:
    """Give a column's number of one evaluation."""
    for group in evaluation.summary["groups"]:
        if group["pairing"] == column.pairing:
            return next((value for key, value in group["scores"].items() if named(key, column.score)), None)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], help="rows to make; none: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes of the recipe")
    parser.add_argument("--tests", nargs="+", choices=list(TESTS), default=list(TESTS), help="what is measured")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="only put together what is measured")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = read_recipe(RECIPE, arguments.set)
    rows = arguments.rows or list(ROWS)
    if not arguments.table:
        for seed in arguments.seeds:
            for name in rows:
                for own in seeds_of(name, [seed]):
                    run_row(name, own, recipe, arguments.set, arguments.tests)
    whole, compared, plain = results(recipe, rows, arguments.seeds, arguments.tests)
    print(markdown(whole, {test: comparison.scores for test, comparison in compared.items()},
                   [column for column in COLUMNS if column.test in arguments.tests]))
    if arguments.json is not None:
        began = {"model": "mini", "sha256": weights_digest(weights_folder("mini"))}
        stage = next(stage for stage in recipe.stages if stage.name == STAGE)
        told = {
            "recipe": recipe.name, "seeds": arguments.seeds, "steps": stage.steps, "batch": stage.batch,
            "side": recipe.drawings.side, "characters": recipe.drawings.characters, "began": began,
            "machine": machine(), **plain,
        }
        arguments.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
