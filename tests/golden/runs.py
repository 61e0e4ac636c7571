"""What a golden sampling run is made of: its network, its guidance, its noise schedule."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from colorcli.model.attention import AttentionPlan
from colorcli.model.conditions import Conditions, branch_rows
from colorcli.model.unet import PLAIN
from colorcli.sampling import PUBLISHED_SCHEDULE, Guidance, Predictor, combine
from tests.golden import networks
from tests.golden.fixture import Fixture


def guidance_of(scale: float | list[float]) -> Guidance:
    """Read a fixture's guidance: one number for the reference, or a pair of reference and sketch."""
    return Guidance(*scale) if isinstance(scale, list) else Guidance(scale)


def guided_network(fixture: Fixture, guidance: Guidance, plan: AttentionPlan = PLAIN) -> Predictor:
    """Make the guided prediction of a fixture that has `context`, `control` and `uncond_control`."""
    unet, given = networks.unet(fixture), fixture.inputs
    maps, blank = fixture.input_family("control"), fixture.input_family("uncond_control")
    branches = guidance.branches
    context = torch.cat([given["context"] * (branch != "uncond_reference") for branch in branches])
    without = {"uncond_sketch": blank}
    control = [torch.cat(rows) for rows in zip(*(without.get(branch, maps) for branch in branches), strict=True)]

    def predict(x: Tensor, time: float) -> Tensor:
        rows = len(branches)
        out = unet(x.repeat(rows, 1, 1, 1), time, given["y"].repeat(rows, 1), context, control, plan)
        return combine(out, guidance)

    return predict


def predict_branches(
    unet: Any, conditions: Conditions, x: Tensor, time: float, branches: Sequence[str]
) -> Tensor:
    """Call the network once for latents x (B, C, h, w) in some branches: (B * branches, C, h, w)."""
    rows = branch_rows(conditions, branches, len(x))
    return unet(x.repeat(len(branches), 1, 1, 1), time, rows.y, rows.context, rows.sketch_maps, rows.plan)


def prediction_of(fixture: Fixture) -> dict[str, Any]:
    """Give the noise schedule of a fixture, with what its network predicts."""
    kind = {"v": "v_prediction", "eps": "epsilon"}[fixture.config["parameterization"]]
    return {**PUBLISHED_SCHEDULE, "prediction_type": kind}
