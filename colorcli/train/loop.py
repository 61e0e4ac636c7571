"""The training loop: stage after stage, stopped and resumed at any step, exported when it is done."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from colorcli.model.build import Components, build_components
from colorcli.model.matcher import RegionMatcher
from colorcli.train.dataset import CharacterSet, draw_shards
from colorcli.train.drawings import PARTS, TAGS
from colorcli.train.export import export_model, give_weights
from colorcli.train.pairs import PairSet, read_shards
from colorcli.train.recipe import Recipe, StageSection, read_recipe, runs_folder
from colorcli.train.stages import OBJECTIVES, TRAINED
from colorcli.variants import MINI

EMA_DECAY = 0.998
GRADIENT_NORM = 1.0  # gradients longer than this are shortened to it
VALIDATE_EVERY = 4  # checkpoints between two validations
VALIDATION_BATCHES = 6


def train(
    recipe_path: Path,
    tell: Callable[[str], None],
    *,
    minutes: float | None = None,
    only: str | None = None,
    start_from: Path | None = None,
) -> Path:
    """Run a recipe, going on where it stopped; gives the run's folder, whose `model/` holds the newest weights.

    tell: receives one line of progress at a time. minutes: stop after about so long, with a checkpoint. only: run
    this stage and no other. start_from: a model folder whose weights are taken where the run has none of its own.
    Raises PresetError for a bad recipe.
    """
    recipe = read_recipe(recipe_path)
    run = runs_folder() / recipe.name
    deadline = time.monotonic() + 60 * minutes if minutes else math.inf
    torch.manual_seed(recipe.seed)
    components = build_components(MINI, len(PARTS), len(TAGS))
    if start_from:
        give_weights(components, start_from)
    drawings = recipe.drawings
    shards = draw_shards(run / "drawings", drawings.characters, drawings.poses, False, tell)
    checks = draw_shards(run / "drawings", drawings.validation_characters, drawings.poses, True, tell)
    train_set, check_set = CharacterSet(shards), CharacterSet(checks)
    tell(f"{len(train_set.characters)} characters to train on, {len(check_set.characters)} to validate on")
    for position, stage in enumerate(recipe.stages):
        checkpoint = Checkpoint(run / f"{position + 1}-{stage.name}")
        if stage.name == "matcher":
            if not (run / "model").is_dir():
                export_model(components, run / "model", recipe.name, recipe.license)
            components.matcher = RegionMatcher(len(PARTS), MINI.channels[0])
        checkpoint.restore_averages(components, stage.name)
        step = checkpoint.step()
        if step < stage.steps and (only is None or only == stage.name) and time.monotonic() < deadline:
            sets: tuple[Any, Any] = train_set, check_set
            if stage.name == "matcher":
                sets = read_pairs(recipe, run, tell)
            run_stage(recipe, stage, components, *sets, checkpoint, tell, deadline)
            checkpoint.restore_averages(components, stage.name)
            export_model(components, run / "model", recipe.name, recipe.license)
        if checkpoint.step() < stage.steps and only is None:
            break
    return run


def read_pairs(recipe: Recipe, run: Path, tell: Callable[[str], None]) -> tuple[PairSet, PairSet]:
    """Read regions with the networks that the run has written last: those to train on, and those to validate on."""
    pairs, folder, model = recipe.pairs, run / "pairs", run / "model"
    train_set = PairSet(read_shards(folder, model, pairs.characters, pairs.frames, False, tell))
    check_set = PairSet(read_shards(folder, model, pairs.validation_characters, pairs.frames, True, tell))
    tell(f"{len(train_set.pairs)} pairs of frame and key to train on, {len(check_set.pairs)} to validate on")
    return train_set, check_set


class Checkpoint:
    """The state of one stage on disk: weights, their running averages, the optimizer's moments, step and curve."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def step(self) -> int:
        """Give the number of steps that are done."""
        path = self.folder / "state.json"
        return int(json.loads(path.read_text())["step"]) if path.exists() else 0

    def save(
        self, step: int, modules: dict[str, nn.Module], averages: dict[str, Tensor], optimizer: torch.optim.AdamW
    ) -> None:
        """Write everything under new names, then point the state at them: a kill leaves a whole checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"weights.{name}": value.detach().contiguous() for name, value in named_weights(modules).items()}
        tensors |= {f"average.{name}": value.contiguous() for name, value in averages.items()}
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"moment.{index}.{key}": torch.as_tensor(value).contiguous() for key, value in moments.items()}
        save_file(tensors, self.folder / f"step-{step}.partial")
        (self.folder / f"step-{step}.partial").rename(self.folder / f"step-{step}.safetensors")
        state = self.folder / "state.json.partial"
        state.write_text(json.dumps({"step": step}))
        state.rename(self.folder / "state.json")
        for old in self.folder.glob("step-*.safetensors"):
            if old.name != f"step-{step}.safetensors":
                old.unlink()

    def restore(self, modules: dict[str, nn.Module], optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
        """Load weights and optimizer of the newest checkpoint, if there is one; gives the running averages."""
        step = self.step()
        if not step:
            return {name: value.detach().clone() for name, value in named_weights(modules).items()}
        tensors = load_file(self.folder / f"step-{step}.safetensors")
        with torch.no_grad():
            for name, value in named_weights(modules).items():
                value.copy_(tensors[f"weights.{name}"])
        state = optimizer.state_dict()
        state["state"] = {}
        for key, value in tensors.items():
            if key.startswith("moment."):
                _, index, moment = key.split(".")
                state["state"].setdefault(int(index), {})[moment] = value
        optimizer.load_state_dict(state)
        return {name.removeprefix("average."): value for name, value in tensors.items() if name.startswith("average.")}

    def restore_averages(self, components: Components, stage: str) -> None:
        """Put the running averages of a stage into the components: what later stages and users see."""
        step = self.step()
        if step:
            tensors = load_file(self.folder / f"step-{step}.safetensors")
            with torch.no_grad():
                for name, value in named_weights(trained_modules(components, stage)).items():
                    value.copy_(tensors[f"average.{name}"])

    def note(self, values: dict[str, float]) -> None:
        """Add a line to the curve."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "curve.jsonl").open("a") as file:
            file.write(json.dumps(values) + "\n")


def trained_modules(components: Components, stage: str) -> dict[str, nn.Module]:
    """Give the modules that learn in a stage, by name."""
    return {name: getattr(components, name) for name in TRAINED[stage]}


def named_weights(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Give all weights of some modules as `<module>.<weight>`, in a fixed order."""
    return {f"{module}.{name}": value for module, net in modules.items() for name, value in net.named_parameters()}


def run_stage(
    recipe: Recipe,
    stage: StageSection,
    components: Components,
    train_set: CharacterSet | PairSet,
    check_set: CharacterSet | PairSet,
    checkpoint: Checkpoint,
    tell: Callable[[str], None],
    deadline: float,
) -> None:
    """Train one stage until its steps are done or the deadline (time.monotonic seconds) has passed."""
    modules = trained_modules(components, stage.name)
    components.freeze()
    for module in modules.values():
        module.requires_grad_(True).train()
    weights = named_weights(modules)
    optimizer = torch.optim.AdamW(weights.values(), lr=stage.rate, betas=(0.9, 0.99), weight_decay=0.01)
    averages = checkpoint.restore(modules, optimizer)
    objective = OBJECTIVES[stage.name]
    started, first = time.monotonic(), checkpoint.step()
    told: dict[str, float] = {}
    for step in range(first, stage.steps):
        # Everything random of a step comes from its number: a resumed run draws what an unbroken one would have drawn.
        rng = np.random.default_rng([recipe.seed, step, len(stage.name)])
        rate = stage.rate * min(1.0, (step + 1) / max(1, stage.warmup)) * (0.1 + 0.9 * cooling(step / stage.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            losses = objective(components, train_set, rng, stage.batch)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(weights.values(), GRADIENT_NORM)
        optimizer.step()
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(averages.values()), [weights[name] for name in averages], 1 - decay)
        for name, value in losses.items():
            now = float(value.detach())
            told[name] = 0.95 * told.get(name, now) + 0.05 * now
        done = step + 1
        last = done == stage.steps or time.monotonic() > deadline
        if done % recipe.checkpoint_every == 0 or last:
            checkpoint.save(done, modules, averages, optimizer)
            seconds = (time.monotonic() - started) / (done - first)
            note: dict[str, float] = {
                "step": done,
                "seconds_per_step": round(seconds, 3),
                **{k: round(v, 4) for k, v in told.items()},
            }
            if done % (recipe.checkpoint_every * VALIDATE_EVERY) == 0 or last:
                note |= {
                    f"check_{k}": round(v, 4)
                    for k, v in validate(stage, components, averages, modules, check_set).items()
                }
            checkpoint.note(note)
            left = seconds * (stage.steps - done) / 60
            tell(
                f"{stage.name}: "
                + " ".join(f"{key} {value:g}" for key, value in note.items())
                + f" minutes_left {left:.0f}"
            )
        if last:
            break


def cooling(progress: float) -> float:
    """Give the share of the learning rate at a point of the stage: full for 60 %, then a half cosine to nothing."""
    return 1.0 if progress < 0.6 else 0.5 * (1 + math.cos(math.pi * (progress - 0.6) / 0.4))


@torch.no_grad()
def validate(
    stage: StageSection,
    components: Components,
    averages: dict[str, Tensor],
    modules: dict[str, nn.Module],
    check_set: CharacterSet | PairSet,
) -> dict[str, float]:
    """Give the mean losses of the averaged weights on characters of families that are never trained on."""
    weights = named_weights(modules)
    current = {name: value.detach().clone() for name, value in weights.items()}
    for name, value in weights.items():
        value.copy_(averages[name])
    for module in modules.values():
        module.eval()
    totals: dict[str, float] = {}
    for batch in range(VALIDATION_BATCHES):
        for name, value in OBJECTIVES[stage.name](components, check_set, np.random.default_rng([5, batch]), 8).items():
            totals[name] = totals.get(name, 0.0) + float(value) / VALIDATION_BATCHES
    for name, value in weights.items():
        value.copy_(current[name])
    for module in modules.values():
        module.train()
    return totals
