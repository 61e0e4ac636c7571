"""`--dry-run`: what would happen and what is wrong, with no picture and no model loaded."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from colorcli import console
from colorcli.errors import ColorcliError

if TYPE_CHECKING:
    from colorcli.shot.plan import ShotPlan, ShotRequest


def show_plans(requests: "Sequence[ShotRequest]", engine: str = "torch") -> int:
    """Print what would happen with each request. Raises the first thing that stops one, after all others are told."""
    from colorcli.shot.plan import plan_requests

    errors: list[ColorcliError] = []
    for request in requests:
        try:
            show_plan(request, engine)
        except ColorcliError as failure:
            errors.append(failure)
    if not errors:
        if len(requests) > 1:
            plan_requests(requests)   # what is wrong between them
        console.say("a dry run: nothing was colored")
        return 0
    for other in errors[1:]:
        console.warn(other.message, other.hint)
    raise errors[0]


def show_plan(request: "ShotRequest", engine: str = "torch") -> None:
    """Print the plan of every shot of a request.

    Raises the first thing that stops a shot, after all others are told.
    """
    from colorcli.model.lora_file import check_loras
    from colorcli.model.onnx_networks import check_networks
    from colorcli.model.weights import find_weights, require_whole
    from colorcli.shot.plan import survey_shots
    from colorcli.shot.stand_in import STAND_IN

    survey = survey_shots(request)
    errors: list[ColorcliError] = list(survey.errors)
    for plan in survey.plans:
        _show(plan)
    try:
        if engine == STAND_IN:
            console.say(f"model   none: the {STAND_IN} colors in the place of {request.preset.model}")
        else:
            listed = require_whole(find_weights(request.preset.model))
            console.say(f"model   {listed.model}, license {listed.license}")
    except ColorcliError as failure:
        errors.append(failure)
    with contextlib.suppress(ColorcliError):  # told with what the survey found
        for key, file in check_networks(request.preset).items():
            console.say(f"network {file.path} for {key}, license {file.license_in_words}")
    with contextlib.suppress(ColorcliError):
        for chosen, lora in zip(request.preset.lora, check_loras(request.preset), strict=True):
            console.say(f"lora    {lora.path} x {chosen.strength:g}, license {lora.license}")
    console.say(f"preset  {request.preset_name} (colorcli presets explain {request.preset_name})")
    if errors:
        for other in errors[1:]:
            console.warn(other.message, other.hint)
        raise errors[0]


def _show(plan: "ShotPlan") -> None:
    from colorcli.shot.layer_files import layer_files
    from colorcli.shot.plan import outputs_there

    console.say(f"shot    {plan.name} in {plan.folder}")
    console.say(f"key     {_joined([str(key) for key in plan.keys])}")
    if plan.key_masks:
        console.say(f"masks   {_joined([str(mask) for mask in plan.key_masks])} for the key")
    if plan.background is not None:
        console.say(f"behind  {plan.background}")
    masked = sum(1 for job in plan.jobs if job.masks)
    if masked:
        console.say(f"masks   for {masked} of {len(plan.jobs)} frames")
    ends = plan.first_and_last
    if ends:
        first, last = ends
        to = f"{first}" if first == last else f"{first} to {last}"
        names = outputs_there(plan)
        there = sum(1 for job in plan.jobs if job.output.name in names)
        again = f" ({there} are there and colored again only if something changed)" if there else ""
        if plan.request.overwrite and there:
            again = f" ({there} are there and colored again)"
        console.say(f"frames  {len(plan.jobs)}: {to}{again}")
    else:
        console.say("frames  none")
    for file in layer_files(plan.jobs[0].output.name, plan.request.preset) if plan.jobs else ():
        console.say(f"layers  {', '.join(file.names)} in {plan.out / file.path}")
    for problem in plan.problems:
        console.warn(problem.message, problem.hint)
    console.say()


def _joined(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"
