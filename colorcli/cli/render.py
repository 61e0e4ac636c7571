"""The run itself: plan, color with progress, and say how it ended."""

import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colorcli import console
from colorcli.cli.elsewhere import Elsewhere, check_elsewhere, open_crew
from colorcli.errors import ColorcliError, FrameError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from colorcli.presets import LoraSettings, Preset
    from colorcli.shot.manifest import FrameRecord
    from colorcli.shot.plan import ShotPlan, ShotRequest
    from colorcli.shot.run import RunResult

DEVICES = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d{1,3})?")
MOST_AT_ONCE = 64
FAILURES_LISTED = 20  # the others are in the manifest
HERE = Elsewhere()


@dataclass(frozen=True)
class Machine:
    """On what the frames are colored, as it was typed."""

    device: str = "auto"
    attention: str = "auto"
    precision: str = "auto"
    memory: str = "auto"
    batch: str = "1"   # a count, or "auto"
    compiled: str = "auto"
    engine: str = "torch"   # or "openvino", the folder of an export, "stand-in"


def render(
    requests: "Sequence[ShotRequest]", machine: Machine, *, progress: str, quiet: bool, elsewhere: Elsewhere = HERE
) -> int:
    """Color what is asked for and give the exit status. Raises what stops the run as a whole.

    Requests with the same settings are colored together; a model that the next settings need as well stays loaded.
    """
    from colorcli.shot.plan import plan_requests

    check_engine(machine.device, machine.attention, machine.precision)
    for request in requests:
        check_networks_engine(request.preset, machine)
    check_elsewhere(elsewhere, machine.device)
    parse_batch(machine.batch)
    if (export := Path(machine.engine).expanduser()).is_dir():
        machine = replace(machine, engine=str(export.absolute()))   # workers start in other folders
    dialect = console.dialect_named(progress, quiet)
    try:
        plans = plan_requests(requests)
        result = _color_all(plans, machine, elsewhere, dialect, quiet)
    except ColorcliError as failure:
        dialect.failed(failure.message)
        raise
    summarize(result, plans, dialect, quiet=quiet)
    return result.exit_code


def _color_all(
    plans: "Sequence[ShotPlan]", machine: Machine, elsewhere: Elsewhere, dialect: console.Dialect, quiet: bool
) -> "RunResult":
    """Color the plans, those of one preset after the other."""
    from colorcli.shot.run import joined_results, run_plans
    from colorcli.shot.stand_in import STAND_IN, stand_in_entry, stand_in_variant

    at_once = parse_batch(machine.batch)
    total = sum(len(plan.jobs) for plan in plans)
    reporter = console.RunReporter(dialect, total, quiet=quiet)
    if machine.engine == STAND_IN:
        reporter.warning(f"--engine {STAND_IN}: these pictures try a set-up, no model colors them")
    presets = _distinct([plan.request.preset for plan in plans])
    kept: dict[Any, Any] = {}
    results: list[RunResult] = []
    done = 0
    try:
        for preset in presets:
            group = [plan for plan in plans if plan.request.preset == preset]
            load = partial(load_for, machine, network_rows(preset, left_to_color(group)))
            model = variant = None
            if machine.engine == STAND_IN:
                model, variant = stand_in_entry(preset.model), stand_in_variant(preset.model)
            with open_crew(
                elsewhere, preset, load, model=model, variant=variant, at_once=at_once, device=machine.device
            ) as crew:
                results.append(run_plans(
                    group, preset, console.PartReporter(reporter, done, total),
                    load_colorizer=partial(_load_or_keep, kept, load, preset), model=model, variant=variant,
                    at_once=at_once, crew=crew,
                ))  # fmt: skip
            done += sum(len(plan.jobs) for plan in group)
            if results[-1].is_over:
                break
        return joined_results(results)
    finally:
        reporter.finished(joined_results(results).totals)


def _distinct(presets: "Sequence[Preset]") -> "list[Preset]":
    found: list[Preset] = []
    for preset in presets:
        if preset not in found:
            found.append(preset)
    return found


def _load_or_keep(kept: dict[Any, Any], load: "Callable[[Preset], Any]", preset: "Preset") -> Any:
    """Load the colorizer of a preset, unless the one that is loaded (in `kept`) is the same."""
    wanted = (preset.model, preset.lora, canvas_area(preset))
    if wanted not in kept:
        kept.clear()   # two large models at once would not fit
        kept[wanted] = load(preset)
    return kept[wanted]


def check_engine(device: str, attention: str, precision: str = "auto") -> None:
    """Raise UsageError or MissingExtraError for what needs no look at the machine to be wrong. Imports nothing."""
    if not DEVICES.fullmatch(device):
        raise UsageError(f"--device {device} is no device", hint="auto, cpu, cuda, cuda:1 or mps")
    if precision == "fp16" and device == "cpu":
        raise UsageError("--precision fp16 does not run on the cpu", hint="--precision bf16 takes as little memory")
    if attention == "xformers":
        if device in ("cpu", "mps"):
            raise UsageError(
                f"--attention xformers does not run on {device}", hint="leave --attention out, or --device cuda"
            )
        if importlib.util.find_spec("xformers") is None:
            raise MissingExtraError(
                "--attention xformers needs the package xformers, which is not installed",
                hint="pip install xformers, or leave --attention out",
            )


def check_networks_engine(preset: "Preset", machine: Machine) -> None:
    """Raise what is wrong with --engine before anything is loaded: the other options, the preset, the export."""
    from colorcli.shot.stand_in import STAND_IN

    # The stand-in takes what is meant for the model it stands for: a set-up is tried with its own command lines.
    if machine.engine in ("torch", STAND_IN):
        return
    from colorcli.model import openvino_export as exported
    from colorcli.model.weights import family_of, find_weights, require_whole

    exported.check_engine_machine(
        machine.engine, machine.device, machine.precision, machine.attention, machine.compiled
    )
    export = exported.find_engine(machine.engine)
    exported.check_engine_settings(preset, family_of(preset.model))
    if export is not None:
        exported.check_export(export, require_whole(find_weights(preset.model)), len(preset.lora))


def canvas_area(preset: "Preset") -> int | None:
    """The pixels of the canvases that a preset asks for; None: the model's own."""
    canvas = preset.canvas
    return canvas.size[0] * canvas.size[1] if canvas.size else canvas.area


def left_to_color(plans: "Sequence[ShotPlan]") -> int:
    """Count the frames that have no picture yet, by their names alone."""
    from colorcli.shot.plan import outputs_there

    left = 0
    for plan in plans:
        there = frozenset() if plan.request.overwrite else outputs_there(plan)
        left += sum(job.size is not None and job.output.name not in there for job in plan.jobs)
    return left


def network_rows(preset: "Preset", frames: int) -> int:
    """How often the network runs for some frames, about: once for each step and branch of guidance."""
    begins, ends = preset.reference.guidance_window
    pushed = (ends - begins) * ((preset.reference.guidance > 1) + (preset.sketch.guidance > 1))
    steps: float = preset.sampling.steps
    if preset.warm_start.on:   # of every stretch all frames but the first make only the last steps
        every = preset.warm_start.every
        steps *= (1 + (every - 1) * preset.warm_start.level) / every
    return round(frames * steps * (1 + pushed))


def parse_batch(text: str) -> int | None:
    """Read how many frames are colored together; None: as many as fit. Raises UsageError."""
    if text == "auto":
        return None
    if not re.fullmatch(r"\d{1,3}", text) or not 1 <= int(text) <= MOST_AT_ONCE:
        raise UsageError(f"--batch {text} is no number of frames", hint=f"1 to {MOST_AT_ONCE}, or auto")
    return int(text)


def load_for(machine: Machine, rows: int, preset: "Preset") -> Any:
    """Load the model of a preset; a worker on another machine does so too.

    rows: how often the network will run, about.
    """
    return load_engine(
        preset.model, machine.device, machine.attention, precision=machine.precision, memory=machine.memory,
        canvas_area=canvas_area(preset), loras=preset.lora, compiled=machine.compiled, rows=rows, engine=machine.engine,
    )  # fmt: skip


def load_engine(
    model: str,
    device: str,
    attention: str,
    *,
    precision: str = "auto",
    memory: str = "auto",
    canvas_area: int | None = None,
    loras: "Sequence[LoraSettings]" = (),
    compiled: str = "auto",
    rows: int = 0,
    engine: str = "torch",
) -> Any:
    """Load the model; only here is torch imported, and not for the stand-in."""
    from colorcli.shot.stand_in import STAND_IN, StandIn

    if engine == STAND_IN:
        return StandIn()
    from colorcli.loading import load_pipeline, share_processor

    return share_processor(
        load_pipeline(model, device, attention, precision, memory, canvas_area, loras, compiled, rows, engine)
    )


def summarize(
    result: "RunResult", plans: "Sequence[ShotPlan]", dialect: console.Dialect, *, quiet: bool = False
) -> None:
    """Say what became of the frames, where they are, and what stopped the run. Raises that, if something did."""
    totals = result.totals
    parts = [
        (totals.written, "colored"),
        (totals.skipped, "up to date"),
        (totals.held, "repeated"),
        (totals.failed, "failed"),
        (totals.missing, "missing"),
    ]
    if result.error is not None and not any(count for count, _ in parts):
        # Refused before the first frame: there is nothing to sum up, and perhaps no folder.
        dialect.failed(result.error.message)
        raise result.error
    counted = ", ".join(f"{count} {word}" for count, word in parts if count) or "none done"
    asked = sum(len(plan.jobs) for plan in plans)
    dialect.summary(
        f"{asked} {'frame' if asked == 1 else 'frames'} in {console.time_in_words(totals.seconds)}: {counted}",
        [str(plan.out) for plan in plans],
        {**totals.model_dump(), "asked": asked, "exit_code": result.exit_code},
    )
    if totals.unsure and not quiet:
        out = folder_of([plan.out for plan in plans])
        verb = "frame has" if totals.unsure == 1 else "frames have"
        console.warn(f"{totals.unsure} {verb} regions to look at", f"colorcli review {out} shows them")
    list_failures(result.failed)
    if result.exit_code in console.STOPPED:
        kind, words = console.STOPPED[result.exit_code]
        console.complain(kind, words)
    elif result.error is not None:
        dialect.failed(result.error.message)
        raise result.error
    elif result.failed:
        failure = failed_frames(result.failed, asked, ours=result.exit_code == ColorcliError.exit_code)
        dialect.failed(failure.message)
        raise failure


def folder_of(outs: "Sequence[Path]") -> str:
    """Give the folder that all results lie in, as it is typed; OUT, where there is none but the whole disk."""
    try:
        common = os.path.commonpath(outs)
    except ValueError:   # some are absolute, some are not
        common = ""
    return "OUT" if common in ("", os.sep) else common


def list_failures(failed: "Sequence[FrameRecord]") -> None:
    """Name each frame that failed, with its reason and what to do."""
    for record in failed[:FAILURES_LISTED]:
        reason = record.error
        console.warn(
            f"{record.frame} failed: {reason.message}" if reason else f"{record.frame} failed",
            reason.hint if reason else None,
        )
    if len(failed) > FAILURES_LISTED:
        console.warn(f"{len(failed) - FAILURES_LISTED} more failed", "colorcli manifest show OUT lists them all")


def failed_frames(failed: "Sequence[FrameRecord]", asked: int, *, ours: bool) -> ColorcliError:
    """The failure of a run in which some frames failed and the others are done, or (`ours`) a bug left none."""
    names = ", ".join(record.frame for record in failed[:4]) + (", ..." if len(failed) > 4 else "")
    message = f"{len(failed)} of {asked} frames failed: {names}"
    if ours:
        return ColorcliError(f"{message}, by a mistake of colorcli", hint="report it with the lines above")
    return FrameError(message, hint="mend them and run the same command again: it colors only those")


def write_previews(request: "ShotRequest") -> int:
    """Write what the model will see of every shot, and give the exit status. Raises what stops it, or FrameError."""
    from colorcli.model.onnx_networks import open_networks
    from colorcli.shot.plan import plan_shots
    from colorcli.shot.preview import write_preview

    failed = []
    plans = plan_shots(request)
    networks = open_networks(request.preset)
    similarity = None
    if any(edit.control is not None for edit in request.preset.manipulate):
        # Only the model knows what the words reach.
        similarity = load_engine(request.preset.model, "auto", "auto").similarity
    for plan in plans:
        for problem in plan.problems:
            if problem.severity == "warning":  # errors come again, as failed frames
                console.warn(problem.message, problem.hint)
        preview = write_preview(plan, request.preset, networks=networks, similarity=similarity)
        console.say(f"{plan.name}: {len(preview.pictures)} pictures in {plan.out}, begin with overview.png")
        for job, failure in preview.failed:
            console.warn(f"{job.name} failed: {failure.message}", failure.hint)
            failed.append(job.name)
    if failed:
        asked = sum(len(plan.jobs) for plan in plans)
        raise FrameError(
            f"{len(failed)} of {asked} frames cannot be prepared: {', '.join(failed[:4])}",
            hint="mend them, or take them out of the folder",
        )
    return 0
