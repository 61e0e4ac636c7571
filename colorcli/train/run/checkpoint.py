"""The state of a stage on disk: written whole or not at all, so that a kill or a full disk costs a few steps only."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from colorcli.errors import OutputError, WeightsError
from colorcli.model.build import Components
from colorcli.train.stages import trained_modules
from colorcli.train.tensor_file import write_tensors
from colorcli.whole_file import whole_file

STATE = "state.json"
CURVE = "curve.jsonl"


@dataclass(frozen=True)
class Place:
    """Where a stage stands: what a checkpoint says beside its tensors."""

    step: int = 0                                                # steps that are done
    told: Mapping[str, float] = field(default_factory=dict)      # running means of the losses
    scaler: Mapping[str, Any] = field(default_factory=dict)      # of fp16 losses
    line: Mapping[str, float] = field(default_factory=dict)      # of the curve at this step; empty: there is none
    drawn: Mapping[str, int] = field(default_factory=dict)       # what decides on all that is random: seed, batch, ...
    minimized: int = 0                                           # check sum of what a stage minimizes, and how


def named_weights(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Give all weights of some modules as `<module>.<weight>`, in a fixed order."""
    return {f"{module}.{name}": value for module, net in modules.items() for name, value in net.named_parameters()}


class Checkpoint:
    """One stage of one run on disk: `step-<n>.safetensors`, `state.json` that points to it, and `curve.jsonl`.

    A file holds `weights.<name>`, `average.<name>` where there are running averages, and `moment.<name>.<key>` of the
    optimizer. Older files count the moments instead of naming them.
    """

    def __init__(self, folder: Path, keep: int = 1) -> None:
        self.folder = folder
        self.keep = keep

    def step(self) -> int:
        """Give the number of steps that are done."""
        try:
            step = int(json.loads((self.folder / STATE).read_text(encoding="utf-8"))["step"])
        except (OSError, ValueError, KeyError, TypeError):
            step = 0
        if self.file(step).is_file():
            return step
        return max(self._steps(), default=0)   # somebody has taken the newest one away

    def file(self, step: int) -> Path:
        """Give the path of the checkpoint of a step."""
        return self.folder / f"step-{step}.safetensors"

    def _steps(self) -> list[int]:
        names = [path.stem.removeprefix("step-") for path in self.folder.glob("step-*.safetensors")]
        return sorted(int(name) for name in names if name.isdigit())

    def save(
        self,
        place: Place,
        modules: Mapping[str, nn.Module],
        averages: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Write a new checkpoint, then point the state at it, then take the oldest away.

        Raises OutputError if it cannot be written; the one before stays.
        """
        weights = named_weights(modules)
        tensors = {f"weights.{name}": value.detach().contiguous() for name, value in weights.items()}
        tensors |= {f"average.{name}": value.contiguous() for name, value in averages.items()}
        names = list(weights)
        for index, moments in optimizer.state_dict()["state"].items():
            for key, value in moments.items():
                tensors[f"moment.{names[index]}.{key}"] = torch.as_tensor(value).contiguous()
        metadata = {"place": json.dumps(asdict(place))}
        self._sweep()
        write_tensors(self.file(place.step), tensors, metadata)
        with whole_file(self.folder / STATE) as temporary:
            temporary.write_text(json.dumps({"step": place.step}) + "\n", encoding="utf-8")
        kept = [step for step in self._steps() if step <= place.step][-self.keep :]
        for step in self._steps():
            if step not in kept:
                self.file(step).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Take away what a kill has left half written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for partial in self.folder.glob(".*.tmp"):
            partial.unlink(missing_ok=True)

    def place(self) -> Place:
        """Say where the stage stands."""
        step = self.step()
        if not step:
            return Place()
        with self._opened(step) as file:
            text = (file.metadata() or {}).get("place")
        said: dict[str, Any] = json.loads(text) if text else {"step": step}
        return Place(**{known.name: said[known.name] for known in fields(Place) if known.name in said})

    def restore(self, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Load weights and optimizer of the newest checkpoint, if there is one; gives the running averages it has.

        Raises WeightsError if the checkpoint is damaged, or is of other networks.
        """
        step = self.step()
        if not step:
            return {}
        tensors = self._tensors(step)
        weights = named_weights(modules)
        self._copy(weights, {name: tensors.get(f"weights.{name}") for name in weights})
        names = list(weights)
        moments: dict[int, dict[str, Tensor]] = {}
        for key in [key for key in tensors if key.startswith("moment.")]:
            name, _, moment = key.removeprefix("moment.").rpartition(".")
            index = int(name) if name.isdigit() else names.index(name)
            moments.setdefault(index, {})[moment] = tensors[key]
        state = optimizer.state_dict()
        state["state"] = moments
        optimizer.load_state_dict(state)
        return {name: tensors[f"average.{name}"] for name in weights if f"average.{name}" in tensors}

    def restore_averages(self, components: Components, stage: str) -> None:
        """Put what a stage has learned into the components, averaged where it was: what later stages and users see."""
        step = self.step()
        if step:
            tensors = self._tensors(step)
            weights = named_weights(trained_modules(components, stage))
            learned = {name: tensors.get(f"average.{name}", tensors.get(f"weights.{name}")) for name in weights}
            self._copy(weights, learned)

    @torch.no_grad()
    def _copy(self, weights: Mapping[str, Tensor], values: Mapping[str, Tensor | None]) -> None:
        for name, weight in weights.items():
            value = values[name]
            if value is None or value.shape != weight.shape:
                found = "none" if value is None else f"one of {tuple(value.shape)}"
                raise WeightsError(
                    f"{self.file(self.step())} is of other networks: it holds {found} for {name} {tuple(weight.shape)}",
                    hint=f"give the recipe another name, or take {self.folder} away to begin the stage anew",
                )
            weight.copy_(value)

    def _tensors(self, step: int) -> dict[str, Tensor]:
        try:
            return load_file(self.file(step))
        except (OSError, SafetensorError) as failure:
            raise self._damaged(step, failure) from failure

    def _opened(self, step: int) -> Any:
        try:
            return safe_open(self.file(step), "pt")
        except (OSError, SafetensorError) as failure:
            raise self._damaged(step, failure) from failure

    def _damaged(self, step: int, failure: Exception) -> WeightsError:
        older = [old for old in self._steps() if old != step]
        again = f"the run then goes on from step {max(older)}" if older else "the stage then begins anew"
        return WeightsError(f"{self.file(step)} is damaged: {failure}", hint=f"take that file away: {again}")

    # --- the curve -------------------------------------------------------------------------------------------------

    def note(self, line: Mapping[str, float]) -> None:
        """Add a line to the curve. Raises OutputError if it cannot be written."""
        path = self.folder / CURVE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dict(line)) + "\n")
        except OSError as failure:
            raise OutputError(f"{path} cannot be written: {failure.strerror}",
                              hint=f"make room on the disk of {path.parent}") from failure

    def curve(self) -> list[dict[str, float]]:
        """Read the curve; a line that a kill has cut off is left out."""
        lines = []
        path = self.folder / CURVE
        for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and "step" in line:
                lines.append(line)
        return lines

    def rewind(self, place: Place) -> None:
        """Bring the curve to where the checkpoint stands: what came after it will come again, and what lacks is added.

        Raises OutputError if it cannot be written.
        """
        lines = self.curve()
        kept = [line for line in lines if line["step"] <= place.step]
        if place.line and place.line["step"] not in [line["step"] for line in kept]:
            kept.append(dict(place.line))
        if kept != lines or not self._ends_in_a_newline():
            with whole_file(self.folder / CURVE) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def _ends_in_a_newline(self) -> bool:
        path = self.folder / CURVE
        return not path.is_file() or not path.stat().st_size or path.read_bytes().endswith(b"\n")
