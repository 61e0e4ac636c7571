"""The training loop: stage after stage, stopped and resumed at any step, exported when it is done."""

import contextlib
import math
import signal
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import fmean
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from colorcli.errors import ColorcliError, OutputError, TrainingError
from colorcli.model.build import Components
from colorcli.train.data.batch import Losses
from colorcli.train.objectives.denoising import recompute
from colorcli.train.recipe import Recipe, StageSection, read_recipe, runs_folder
from colorcli.train.run.averages import Averages
from colorcli.train.run.board import Board
from colorcli.train.run.checkpoint import Checkpoint, Place, named_weights
from colorcli.train.run.export import export_model
from colorcli.train.run.export_lora import export_lora
from colorcli.train.run.prefetch import Prefetched
from colorcli.train.run.previews import draw_previews
from colorcli.train.run.processes import accelerated, only_run
from colorcli.train.run.progress import Lines, Progress, StageNews, StepNews
from colorcli.train.run.sources import Sources, require_data
from colorcli.train.run.start import begin, ready_for
from colorcli.train.stages import STAGES, trained_modules
from colorcli.train.turn import Turn

VALIDATION_BATCHES = 6
VALIDATION_SEED = 5
VALIDATION_SIZE = 8     # drawings in a batch of validation, whatever the batches of the stage
SMOOTHING = 0.95        # share of the running mean of a loss that stays at each step


def train(
    recipe_path: Path,
    tell: Callable[[str], None],
    *,
    minutes: float | None = None,
    only: str | None = None,
    start_from: Path | None = None,
    device: str = "auto",
    changes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Path:
    """Run a recipe, going on where it stopped; gives the run's folder, whose `model/` holds the newest weights.

    tell: receives one line of progress at a time, where there is no `progress`. minutes: stop after about so long, with
    a checkpoint. only: run this stage and no other. start_from: a model folder whose weights are taken where the run
    has none of its own. device: "auto", "cpu", "cuda", "cuda:1". changes: laid over the recipe, "seed=2".

    SIGINT and SIGTERM end it after the step at hand, with a checkpoint, and are then handed on.
    Raises PresetError for a bad recipe, TrainingError if the loss is no number any more, OutputError if the disk is
    full, WeightsError for weights that do not fit, UsageError if this run is going on in another process.
    """
    recipe = read_recipe(recipe_path, changes)
    if start_from:
        recipe = recipe.model_copy(update={"start_from": start_from})
    deadline = time.monotonic() + 60 * minutes if minutes else math.inf
    run = Run(recipe, runs_folder() / recipe.name, progress or Lines(tell), deadline, only)
    with accelerated(recipe.precision, device) as accelerator:
        if not accelerator.is_main_process:
            run = Run(recipe, run.folder, Lines(lambda _: None), deadline, only)
        lock = only_run(run.folder) if accelerator.is_main_process else contextlib.nullcontext()
        with lock, contextlib.closing(run):
            run.train(accelerator)
    return run.folder


@dataclass
class Run:
    """One run of a recipe."""

    recipe: Recipe
    folder: Path
    progress: Progress
    deadline: float           # time.monotonic seconds
    only: str | None = None   # the stage that is trained, None: all
    boards: list[Board] = field(default_factory=list)

    def close(self) -> None:
        """End what tells of the run."""
        for board in self.boards:
            board.close()
        self.progress.end()

    def train(self, accelerator: Accelerator) -> None:
        """Train all stages that are not done yet."""
        recipe = self.recipe
        require_data(recipe)   # before gigabytes are loaded
        components = begin(recipe, self.progress.say)
        sources = Sources(recipe, self.folder, accelerator, self.progress.say)
        for position, options in enumerate(recipe.stages):
            checkpoint = Checkpoint(self.folder / f"{position + 1}-{options.name}", recipe.keep)
            if options.name == "matcher" and accelerator.is_main_process and not (self.folder / "model").is_dir():
                self.export(components)   # with its networks the regions are read that the matcher learns from
            ready_for(components, options, recipe.seed)
            checkpoint.restore_averages(components, options.name)
            started = (self.only in (None, options.name)) and time.monotonic() < self.deadline
            if checkpoint.step() < options.steps and started:
                for _, module in components.modules():
                    module.to(accelerator.device)
                sets = sources.of(STAGES[options.name].data)
                StageRun(self, position, checkpoint, components, accelerator, *sets).train()
                accelerator.wait_for_everyone()
                checkpoint.restore_averages(components, options.name)
                if accelerator.is_main_process:
                    self.export(components)
            if checkpoint.step() < options.steps and self.only is None:
                break

    def export(self, components: Components) -> None:
        """Write the model as it is now, or the LoRA file."""
        if self.recipe.stages[0].name == "lora":
            file = self.folder / f"{self.recipe.name}.safetensors"
            self.progress.say(f"writing {file}; a preset names it under lora:")
            export_lora(components, file, self.recipe)
            return
        self.progress.say(f"writing the model to {self.folder / 'model'}")
        export_model(components, self.folder / "model", self.recipe)


class Objective(nn.Module):
    """The loss of a stage as one module that holds what learns: so all of it is kept equal between processes."""

    def __init__(self, components: Components, options: StageSection, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        # A path such as unet.style_modules is no name that a module may have.
        self.learning = nn.ModuleDict({path.replace(".", "/"): module for path, module in modules.items()})
        self._components = components   # no module itself: what is frozen in it is no part of this one
        self._options = options

    def forward(self, batch: Any, turn: Turn) -> Losses:
        """Give the losses of a batch; only "loss" has a gradient."""
        losses = STAGES[self._options.name].losses(self._components, batch, turn, self._options)
        return {name: value if name == "loss" else value.detach() for name, value in losses.items()}


class StageRun:
    """One stage being trained."""

    def __init__(
        self,
        run: Run,
        position: int,
        checkpoint: Checkpoint,
        components: Components,
        accelerator: Accelerator,
        train_set: Any,
        check_set: Any,
    ) -> None:
        self.run, self.recipe, self.position = run, run.recipe, position
        self.options = run.recipe.stages[position]
        self.kind = STAGES[self.options.name]
        self.checkpoint, self.components, self.accelerator = checkpoint, components, accelerator
        self.train_set, self.check_set = train_set, check_set

        components.freeze()
        recompute(components, self.recipe.checkpointing)
        self.modules = trained_modules(components, self.options.name)
        for module in self.modules.values():
            module.requires_grad_(True).train()
        self.weights = named_weights(self.modules)
        section = self.recipe.optimizer
        optimizer = torch.optim.AdamW(
            self.weights.values(), lr=self.options.rate, betas=section.betas, weight_decay=section.weight_decay
        )
        saved = checkpoint.restore(self.modules, optimizer)
        self.averages = Averages(self.recipe.ema, self.weights, saved)
        place = checkpoint.place()
        self.minimized = zlib.crc32(self.options.model_dump_json(exclude={"steps"}).encode())
        # Running means of losses that are no longer there would be told on for ever.
        same = self.minimized == place.minimized
        self.first, self.told = place.step, dict(place.told) if same else {}
        self.drawn = {"seed": self.recipe.seed, "batch": self.options.batch, "accumulation": self.recipe.accumulation,
                      "processes": accelerator.num_processes}
        changed = [f"{name} {value} instead of {place.drawn[name]}" for name, value in self.drawn.items()
                   if place.drawn.get(name, value) != value]
        if changed:
            run.progress.warn(f"{self.options.name} goes on with {', '.join(changed)}: no unbroken run is the same")
        if accelerator.is_main_process:
            checkpoint.rewind(place)
        if accelerator.scaler is not None and place.scaler:
            accelerator.scaler.load_state_dict(dict(place.scaler))
        objective = Objective(components, self.options, self.modules)
        self.objective, self.optimizer = accelerator.prepare(objective, optimizer)
        self.board: Board | None = None
        if self.recipe.tensorboard and accelerator.is_main_process:
            self.board = Board(run.folder / "tensorboard" / checkpoint.folder.name, self.first)
            run.boards.append(self.board)

    def train(self) -> None:
        """Train until the steps are done, the time is over, or somebody stops it."""
        options, run = self.options, self.run
        run.progress.stage(StageNews(self.recipe.name, options.name, self.position + 1, len(self.recipe.stages),
                                     self.first, options.steps))
        number, started = 0, time.monotonic()
        with Prefetched(self._turns(), self._batch) as batches, StopSign() as stop:
            for step in range(self.first, options.steps):
                losses = self._step(step, batches)
                passed = time.monotonic() > run.deadline
                losses, number, passed = self._agree(losses, stop.number, passed)
                for name, value in losses.items():
                    self.told[name] = SMOOTHING * self.told.get(name, value) + (1 - SMOOTHING) * value
                seconds = (time.monotonic() - started) / (step + 1 - self.first)
                left = seconds * (options.steps - step - 1)
                run.progress.step(StepNews(step + 1, self.told, seconds, left))
                if self.accelerator.is_main_process:
                    self._keep_books(step + 1, seconds, passed=passed, stopped=bool(number))
                if number or passed:
                    break
        self.accelerator.free_memory()
        broken = str(getattr(self.train_set, "broken", ""))   # of a folder of pictures: those that cannot be used
        if broken:
            run.progress.warn(broken)
        if number:
            signal.raise_signal(number)

    # --- one step --------------------------------------------------------------------------------------------------

    def _turns(self) -> Iterator[Turn]:
        micros, processes = self.recipe.accumulation, self.accelerator.num_processes
        for step, micro in product(range(self.first, self.options.steps), range(micros)):
            yield Turn(self.recipe.seed, self.checkpoint.folder.name, step, micro, self.accelerator.process_index,
                       micros, processes)

    def _rate(self, step: int) -> float:
        pictures = self.options.batch * self.recipe.accumulation * self.accelerator.num_processes
        return rate_at(self.options, step) * (pictures if self.options.scaled_rate else 1)

    def _batch(self, turn: Turn) -> tuple[Turn, Any]:
        return turn, self.kind.make_batch(self.train_set, turn, self.options.batch, self.options)

    def _step(self, step: int, batches: Iterator[tuple[Turn, Any]]) -> dict[str, float]:
        """Take one step of the optimizer; gives the mean losses of this process's micro-batches."""
        micros = self.recipe.accumulation
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(step)
        names: list[str] = []
        seen: dict[str, list[Tensor]] = {}
        for micro in range(micros):
            turn, batch = next(batches)
            names += getattr(batch, "names", ())
            # What a network draws by itself, such as dropout, comes from the turn as well.
            torch.manual_seed(turn.layers_seed)
            last = micro == micros - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.objective):
                losses = self.objective(batch.to(self.accelerator.device), turn)
                self.accelerator.backward(losses["loss"] / micros)
            for name, value in losses.items():
                seen.setdefault(name, []).append(value.detach().float().to(self.accelerator.device))
        values = torch.stack([torch.stack(of_all).mean() for of_all in seen.values()])
        means = dict(zip(seen, values.tolist(), strict=True))   # the only moment at which the device is waited for
        # The length of the gradient is measured even if it is left as it is: a step with none must not be taken.
        norm = float(self.accelerator.clip_grad_norm_(self.weights.values(), self.recipe.optimizer.clip or math.inf))
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if not math.isfinite(norm) and self.accelerator.scaler is None:   # a scaler looks for them by itself
            broken.append("gradient")
        if broken:
            raise self._broken(step, broken[0], means, names)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.averages.follow(step)
        return {**means, "gradient": norm} if math.isfinite(norm) else means

    def _broken(self, step: int, what: str, means: Mapping[str, float], names: Sequence[str]) -> TrainingError:
        value = f"{what} is {means[what]}" if what in means else f"the {what} is no number"
        batch = f", of {', '.join(names)}" if names else ""
        done = self.checkpoint.step()
        good = f"the last good checkpoint is {self.checkpoint.file(done)}" if done else "there is no checkpoint yet"
        return TrainingError(
            f"{self.options.name} broke down at step {step + 1}: {value}{batch}; {good}",
            hint="lower stages.*.rate, set optimizer.clip: 1.0 or precision: fp32; the same command goes on from there",
        )

    def _agree(self, losses: dict[str, float], number: int, passed: bool) -> tuple[dict[str, float], int, bool]:
        """Bring all processes to one mind: mean losses, the signal that any of them got, whether the time is over."""
        if self.accelerator.num_processes == 1:
            return losses, number, passed
        told: list[tuple[dict[str, float], int, bool]] = gather_object([(losses, number, passed)])
        names = dict.fromkeys(name for theirs, _, _ in told for name in theirs)   # not every batch has every loss
        means = {name: fmean(theirs[name] for theirs, _, _ in told if name in theirs) for name in names}
        return means, max(number for _, number, _ in told), any(passed for _, _, passed in told)

    # --- what is kept of it ----------------------------------------------------------------------------------------

    def _keep_books(self, done: int, seconds: float, *, passed: bool, stopped: bool) -> None:
        """Write the curve, checkpoints and previews that are due after a step."""
        recipe, options = self.recipe, self.options
        last = done == options.steps or passed
        saves = done % recipe.checkpoint_every == 0 or last or stopped
        line: dict[str, float] = {}
        if saves or done % recipe.curve_every == 0:
            told = {name: round(value, 4) for name, value in self.told.items()}
            line = {"step": done, "seconds_per_step": round(seconds, 3), **told}
            if last or (recipe.validate_every and done % recipe.validate_every == 0):
                line |= {f"check_{name}": round(value, 4) for name, value in self._validate().items()}
        if saves:
            place = Place(done, self.told, self._scaler(), line, self.drawn, self.minimized)
            self._save(place, must=last and not stopped)
        if line:
            left = seconds * (options.steps - done)
            try:
                self.checkpoint.note(line)
            except OutputError as failure:
                self.run.progress.warn(failure.message)
            if self.board is not None:
                self.board.note(line, self._rate(done - 1))
            self.run.progress.line(options.name, line, left)
        if recipe.previews.every and (done % recipe.previews.every == 0 or done == options.steps):
            self._preview(done)

    def _scaler(self) -> dict[str, Any]:
        return dict(self.accelerator.scaler.state_dict()) if self.accelerator.scaler is not None else {}

    def _save(self, place: Place, must: bool) -> None:
        """Write a checkpoint. A full disk stops nothing but the last one: somebody may make room until the next."""
        try:
            self.checkpoint.save(place, self.modules, self.averages.tensors, self.optimizer)
        except OutputError as failure:
            before = self.checkpoint.step()
            kept = f"that of step {before} stays" if before else "there is none yet"
            if must:
                raise OutputError(f"{failure.message}; {kept}", hint=failure.hint) from failure
            self.run.progress.warn(f"{failure.message}; {kept}, and training goes on to the next try")

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Give the mean losses of the averaged weights on data never trained on; empty if there are none."""
        if self.check_set is None:
            return {}
        totals: dict[str, float] = {}
        size = min(VALIDATION_SIZE, max(2, self.options.batch))
        with self._shown():
            for number in range(VALIDATION_BATCHES):
                turn = Turn(VALIDATION_SEED, "validation", number)
                batch = self.kind.make_batch(self.check_set, turn, size, self.options).to(self.accelerator.device)
                losses = self.kind.losses(self.components, batch, turn, self.options)
                for name, value in losses.items():
                    totals[name] = totals.get(name, 0.0) + float(value) / VALIDATION_BATCHES
        return totals

    def _preview(self, done: int) -> None:
        path = self.run.folder / "previews" / f"{self.checkpoint.folder.name}-{done:06d}.png"
        try:
            with self._shown():
                draw_previews(self.components, self.run.folder, path, self.recipe.previews.pictures)
        except ColorcliError as failure:
            self.run.progress.warn(f"no preview at step {done}: {failure.message}")

    @contextlib.contextmanager
    def _shown(self) -> Iterator[None]:
        """The networks as a user would see them: averaged weights, in evaluation."""
        with self.averages.shown():
            for module in self.modules.values():
                module.eval()
            try:
                yield
            finally:
                for module in self.modules.values():
                    module.train()


class StopSign:
    """While it stands, the first SIGINT or SIGTERM is only taken down, so that the step at hand can be finished.

    A second one goes where it would have gone without. In other threads than the main one it does nothing.
    """

    def __init__(self) -> None:
        self.number = 0   # of the signal, 0: none
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSign":
        with contextlib.suppress(ValueError):
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._take_down)
        return self

    def __exit__(self, *failure: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()

    def _take_down(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            self.__exit__()
            signal.raise_signal(number)
        self.number = number


def rate_at(options: StageSection, step: int) -> float:
    """Give the learning rate at a step: rising at the start, and at the end falling to a tenth by half a cosine."""
    risen = min(1.0, (step + 1) / max(1, options.warmup))
    cooled = (step / options.steps - (1 - options.cooling)) / options.cooling if options.cooling else 0.0
    return options.rate * risen * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * max(0.0, cooled))))
