"""Guidance: how far the prediction is pushed towards the reference and the drawing, and when."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from colorcli.model.attention import Injection
from colorcli.model.conditions import Conditions, Rows, branch_rows
from colorcli.sampling.injection import ReferenceOnly, seen_of_key
from colorcli.sampling.levels import TRAINING_STEPS, NoiseLevels

Predictor = Callable[[Tensor, float], Tensor]  # latents of unit variance, time -> the network's prediction


@dataclass(frozen=True)
class Guidance:
    """How far the prediction is pushed towards the reference and the drawing, and when the reference is seen.

    window, off_window: progress 0..1 of the run; the reference is seen inside the first and not inside the second.
    push_window: progress between which the prediction is pushed; outside it is the plain one, which costs one row
    (Kynkäänniemi et al. 2024, arXiv:2404.07724).
    """

    reference: float = 1.0  # 1 or less is off
    sketch: float = 1.0  # 1 or less is off
    window: tuple[float, float] = (0.0, 1.0)
    off_window: tuple[float, float] = (-0.05, -0.05)
    push_window: tuple[float, float] = (0.0, 1.0)

    @property
    def branches(self) -> tuple[str, ...]:
        """Name the rows that one network call needs, in their order."""
        switched = (("uncond_reference", self.reference > 1), ("uncond_sketch", self.sketch > 1))
        return ("cond", *(name for name, on in switched if on))

    def sees_reference(self, time: float, training_steps: int = TRAINING_STEPS) -> bool:
        """Tell whether the reference is seen at a time, which runs from training_steps - 1 down to 0."""
        progress = _progress(time, training_steps)
        inside = self.window[0] <= progress <= self.window[1]
        return inside and not self.off_window[0] <= progress <= self.off_window[1]

    def rows_at(
        self, time: float, *, reads_key: bool = False, training_steps: int = TRAINING_STEPS
    ) -> tuple[str, ...]:
        """Name the branches whose rows have to be computed at a time, of `branches` and in their order.

        Outside the push window the plain row is enough. Where the reference is not seen, the row without it would say
        what the plain one says, unless reference-only attention sets it apart (`reads_key`).
        """
        if not self.push_window[0] <= _progress(time, training_steps) <= self.push_window[1]:
            return ("cond",)
        alike = not reads_key and not self.sees_reference(time, training_steps)
        return tuple(branch for branch in self.branches if not (alike and branch == "uncond_reference"))


def _progress(time: float, training_steps: int) -> float:
    return 1 - time / (training_steps - 1)


def combine(rows: Tensor, guidance: Guidance) -> Tensor:
    """Make one prediction (B, ...) of the rows of all branches (B * branches, ...), in the order of `branches`."""
    cond, *others = rows.chunk(len(guidance.branches))
    if not others:
        return cond
    scales = [scale for scale in (guidance.reference, guidance.sketch) if scale > 1]
    pushed = [uncond + scale * (cond - uncond) for uncond, scale in zip(others, scales, strict=True)]
    return torch.stack(pushed).mean(0)


def guided(
    unet: Any,
    conditions: Conditions,
    guidance: Guidance,
    levels: NoiseLevels | None = None,
    reference_only: ReferenceOnly | None = None,
) -> Predictor:
    """Make the guided prediction of the frames of `conditions`; `levels` are needed for reference-only attention."""
    laid_out: dict[tuple[tuple[str, ...], int, bool], Rows] = {}

    def rows_of(branches: tuple[str, ...], frames: int, seen: bool) -> Rows:
        wanted = branches, frames, seen
        if wanted not in laid_out:
            laid_out[wanted] = branch_rows(conditions, branches, frames, sees_reference=seen)
        return laid_out[wanted]

    def predict(x: Tensor, time: float) -> Tensor:
        seen = guidance.sees_reference(time)
        reads_key = reference_only is not None and reference_only.is_read(time)
        branches = guidance.rows_at(time, reads_key=reads_key)
        rows = rows_of(branches, len(x), seen)
        plan = rows.plan
        if reference_only is not None and reads_key:
            assert levels is not None
            own = range(len(x), 2 * len(x)) if "uncond_reference" in branches else ()
            stored = seen_of_key(unet, rows, len(branches) * len(x), time, levels, reference_only)
            plan = replace(plan, bank=(), alike=None, injection=Injection(stored, reference_only.fidelity, own))
        out = unet(x.repeat(len(branches), 1, 1, 1), time, rows.y, rows.context, rows.sketch_maps, plan)
        if branches == ("cond",):
            return out
        # A row that was left out says what the plain one says.
        known = dict(zip(branches, out.chunk(len(branches)), strict=True))
        whole = [known.get(branch, known["cond"]) for branch in guidance.branches]
        return combine(torch.cat(whole) if len(whole) > len(known) else out, guidance)

    return predict
