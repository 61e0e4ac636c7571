"""Color the planned shots, and say how it ended: the one call behind `colorcli SHOT --ref KEY`."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

from colorcli.errors import ColorcliError, FrameError, KeyImageError, ShotError
from colorcli.model.lora_file import check_loras
from colorcli.model.onnx_networks import open_networks
from colorcli.presets import Preset
from colorcli.shot.crew import Crew
from colorcli.shot.engine import (
    Batch,
    Colorizer,
    Engine,
    Loader,
    lora_entry,
    model_entry,
    network_entry,
    variant_of,
)
from colorcli.shot.leases import LeaseTimes
from colorcli.shot.manifest import FrameRecord, ModelEntry, Totals
from colorcli.shot.plan import ShotPlan
from colorcli.shot.reporter import Reporter
from colorcli.shot.shot_run import INTERRUPTED, TERMINATED, ShotRun, Terminated
from colorcli.variants import Variant

__all__ = ["Colorizer", "Crew", "Reporter", "RunResult", "open_engine", "run_plans"]


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    totals: Totals
    exit_code: int                       # 0, 7, 130, 143, or that of `error`
    error: ColorcliError | None          # what stopped the run, or a shot
    failed: tuple[FrameRecord, ...]      # in order

    @property
    def is_over(self) -> bool:
        """Whether nothing more would come of it: somebody stopped it, the disk is full, there are no weights."""
        if self.error is not None:
            return not isinstance(self.error, (KeyImageError, ShotError))
        return self.exit_code in (INTERRUPTED, TERMINATED)


def joined_results(results: Sequence[RunResult]) -> RunResult:
    """How a run of several parts ended: as its last one if that is over, else as one that a shot's fault has ended."""
    totals = sum((result.totals for result in results), start=Totals())
    wrong = sorted((result for result in results if result.exit_code), key=lambda result: result.error is None)
    told = results[-1] if results and results[-1].is_over else next(iter(wrong), None)
    return RunResult(
        totals.model_copy(update={"seconds": round(totals.seconds, 3)}),
        told.exit_code if told else 0,
        told.error if told else None,
        tuple(record for result in results for record in result.failed),
    )


def run_plans(
    plans: Sequence[ShotPlan],
    preset: Preset,
    reporter: Reporter,
    *,
    load_colorizer: Callable[[], Colorizer],
    model: ModelEntry | None = None,
    variant: Variant | None = None,
    threads: int = 2,
    at_once: int | None = 1,
    device: str = "auto",
    crew: Crew | None = None,
    lease_times: LeaseTimes | None = None,
) -> RunResult:
    """Color every frame that is not up to date, and record it.

    load_colorizer: called once in a thread of its own, while the first frames are read; not at all if nothing is left
    to color. model: the weights it loads; None: those that the preset names. variant: its numbers; None: by
    the name in `model`. threads: for reading, and as many for
    writing. at_once: frames of one size that are colored together, None: as many as
    the colorizer says; half as many if memory runs out. device: where networks that find masks and lines
    run; "cpu" keeps them off a CUDA device. crew: who colors in the place of this process, which then loads nothing.
    lease_times: when another process that works in the same OUT is taken for dead.

    Failed frames are recorded and the others go on (exit code 7). A key that cannot be read ends its shot; a full disk,
    a missing device or damaged weights end the run, and what is finished stays. Nothing is raised for what a user can
    cause; Ctrl-C and SIGTERM give 130 and 143.
    """
    started = time.monotonic()
    totals = Totals()
    failed: list[FrameRecord] = []
    error: ColorcliError | None = None
    exit_code = 0
    loader = Loader(load_colorizer)
    total = sum(len(plan.jobs) for plan in plans)
    done = 0
    try:
        with _sigterm_raises():
            engine = open_engine(preset, loader, model=model, variant=variant, at_once=at_once, device=device)
            _tell_licenses(engine, reporter)
            if preset.warm_start.on and at_once not in (None, 1):
                reporter.warning(f"frames that begin from each other are colored one at a time, not {at_once} together")
            for plan in plans:
                shot = ShotRun(plan, engine, reporter, threads, done, total, crew, lease_times)
                try:
                    reporter.started(plan)
                    shot.run()
                except (KeyImageError, ShotError) as problem:
                    error = error or problem
                    reporter.warning(problem.message)
                finally:
                    done += len(plan.jobs)
                    totals += shot.totals()
                    failed += shot.failed()
        exit_code = error.exit_code if error else _exit_code_of(totals, failed)
        if error is None:
            # A process that ends in order does not tear down a thread in the middle of an import.
            loader.wait()
    except ColorcliError as problem:
        error, exit_code = problem, problem.exit_code
    except KeyboardInterrupt:
        exit_code = INTERRUPTED
    except Terminated:
        exit_code = TERMINATED
    finally:
        totals = totals.model_copy(update={"seconds": round(time.monotonic() - started, 3)})
        reporter.finished(totals)
    return RunResult(totals, exit_code, error, tuple(failed))


def open_engine(
    preset: Preset,
    loader: Loader,
    *,
    model: ModelEntry | None = None,
    variant: Variant | None = None,
    at_once: int | None = 1,
    device: str = "auto",
) -> Engine:
    """What all shots of a run share; the arguments are those of `run_plans`. Raises WeightsError."""
    model = model or model_entry(preset.model)
    networks = open_networks(preset, device)
    networks_used = [network_entry(key, file) for key, file in (networks.files if networks else {}).items()]
    loras_used = [lora_entry(number, lora) for number, lora in enumerate(check_loras(preset), 1)]
    return Engine(
        preset,
        variant or variant_of(model, preset.model),
        model,
        loader,
        Batch(at_once, single_file=preset.warm_start.on),
        networks=networks,
        network_entries=(*networks_used, *loras_used),
    )


def _tell_licenses(engine: Engine, reporter: Reporter) -> None:
    """Name the license of every network that is used beside the model."""
    for key, file in (engine.networks.files if engine.networks else {}).items():
        reporter.warning(f"{key}: {file.path.name}, license {file.license_in_words}")
    for entry in engine.network_entries:
        if entry.used_for.startswith("lora."):
            number = entry.used_for.removeprefix("lora.")
            reporter.warning(f"lora, entry {number}: {entry.name}, license {entry.license}")


def _exit_code_of(totals: Totals, failed: Sequence[FrameRecord]) -> int:
    """7 if some frames failed; 1 if none was done and every failure is a bug of ours."""
    if not failed:
        return 0
    none_done = totals.written + totals.held + totals.skipped == 0
    ours = all(record.error is not None and record.error.kind == "internal" for record in failed)
    return ColorcliError.exit_code if none_done and ours else FrameError.exit_code


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into an exception, where signals can be handled at all (the main thread)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
