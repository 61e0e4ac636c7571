"""What a show LoRA is good for: `python -m benchmarks.show_lora`.

Characters of a family that mini never learned from are drawn. `recipes/show-lora.yaml` learns from the key and some
poses of each, and the region accuracy on other poses is measured before and after, along a render's own path.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, note, report
from colorcli.loading import load_pipeline
from colorcli.pipeline import ColorizePipeline
from colorcli.presets import LoraSettings, Preset, load_preset
from colorcli.train.data.validation import write_validation_shots
from colorcli.train.drawings import VALIDATION_FAMILIES
from colorcli.train.evaluation.evaluate import EvaluationRow, evaluate_shots
from colorcli.train.run.loop import train

RECIPE = Path(__file__).parents[1] / "recipes" / "show-lora.yaml"
CHARACTERS, SHEETS, UNSEEN = 3, 5, 5   # of each character: poses beside the key that are learned from, and that are not
SEEDS = (0, 1)


def draw_show(folder: Path, family: str) -> tuple[Path, Path]:
    """Draw a show: the folder of its model sheets, and that of the shots to measure on."""
    write_validation_shots(folder / "drawn", CHARACTERS, SHEETS + UNSEEN, families=(family,))
    for shot in sorted((folder / "drawn").iterdir()):
        for where, poses in (("sheets", slice(SHEETS)), ("unseen", slice(SHEETS, None))):
            for part in ("line", "color"):
                (folder / where / shot.name / part).mkdir(parents=True)
                for picture in sorted((shot / part).iterdir())[poses]:
                    shutil.copy(picture, folder / where / shot.name / part)
            shutil.copy(shot / "key.png", folder / where / shot.name)
    return folder / "sheets", folder / "unseen"


def learn(folder: Path, sheets: Path, seed: int) -> tuple[Path, float]:
    """Run the recipe: the file that it writes, and the processor's seconds, reading of the sheets included."""
    began = time.process_time()
    name = f"seed-{seed}"
    run = train(RECIPE, note, device="cpu", changes=(f"sheets.folder={sheets}", f"name={name}", f"seed={seed}"))
    (file,) = run.glob("*.safetensors")
    shutil.copy(file, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors", time.process_time() - began


def accuracy(rows: Sequence[EvaluationRow]) -> dict[str, Any]:
    """Pool the regions of all shots."""
    regions = sum(row.regions for row in rows)
    right = sum(row.scores["accuracy"] * row.regions for row in rows)
    return {"regions": regions, "right": round(right / regions, 4)}


def measured(unseen: Path, preset: Preset, pipeline: ColorizePipeline) -> dict[str, Any]:
    """Measure a model on the poses that nothing was learned from."""
    return accuracy(evaluate_shots(unseen, preset, colorizer=pipeline, variant=pipeline.variant))


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=VALIDATION_FAMILIES, default="noodle")
    parser.add_argument("--json", type=Path, help="write the result here, too")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "family": arguments.family, "pictures": SHEETS + 1}
    with tempfile.TemporaryDirectory() as there:
        folder = Path(there)
        os.environ["COLORCLI_RUNS"] = str(folder / "runs")   # of this process alone: nothing of it is kept
        sheets, unseen = draw_show(folder, arguments.family)
        pipeline, preset = load_pipeline("mini", "cpu"), load_preset("cel")
        result["without"] = measured(unseen, preset, pipeline)
        for seed in SEEDS:
            file, seconds = learn(folder, sheets, seed)
            changed = pipeline.with_loras([LoraSettings(file=str(file))])
            with_it = measured(unseen, preset, changed)
            result[f"seed {seed}"] = {**with_it, "bytes": file.stat().st_size, "cpu_seconds": round(seconds, 1)}
    report(result, arguments.json)


if __name__ == "__main__":
    main()
