"""`--on ray`: colors on other processes and machines instead of this one."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colorcli.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from colorcli.presets import Preset
    from colorcli.shot.manifest import ModelEntry
    from colorcli.shot.run import Crew
    from colorcli.variants import Variant

MOST_WORKERS = 1000


@dataclass(frozen=True)
class Elsewhere:
    """Where frames are colored, as it was typed."""

    where: str | None = None       # "ray", "ray:auto", "ray:HOST:PORT", "ray://HOST:PORT"; None: here
    workers: int | None = None     # None: one a GPU, or one a machine
    collect: bool = False          # the machines share no storage


def check_elsewhere(elsewhere: Elsewhere, device: str) -> None:
    """Raise UsageError or MissingExtraError for what needs no look at a cluster to be wrong. Imports no Ray."""
    if elsewhere.where is None:
        for option, given in (("--workers", elsewhere.workers is not None), ("--collect", elsewhere.collect)):
            if given:
                hint = f"add --on ray, or leave {option} out"
                raise UsageError(f"{option} is for a cluster, and none is named", hint=hint)
        return
    from colorcli.farm.ray import address_of, check_ray

    address_of(elsewhere.where)
    if elsewhere.workers is not None and not 1 <= elsewhere.workers <= MOST_WORKERS:
        raise UsageError(f"--workers {elsewhere.workers} is no number of workers", hint=f"1 to {MOST_WORKERS}")
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device {device} does not go with --on, where each worker has its own GPU",
            hint="leave --device out, or --device cpu",
        )
    check_ray()


def open_crew(
    elsewhere: Elsewhere,
    preset: "Preset",
    load: "Callable[[Preset], Any]",
    *,
    model: "ModelEntry | None",
    variant: "Variant | None",
    at_once: int | None,
    device: str,
) -> "AbstractContextManager[Crew | None]":
    """Who colors in the place of this process, as a context that ends it; None: nobody. Connects to nothing yet."""
    if elsewhere.where is None:
        return nullcontext()
    from colorcli.farm.crew import ClusterCrew
    from colorcli.farm.ray import RayCluster, address_of

    cluster = RayCluster(address_of(elsewhere.where), elsewhere.workers, device)
    preset = preset.model_copy(update={"model": _absolute_model(preset.model)})
    return ClusterCrew(
        cluster, preset, load, collect=elsewhere.collect, model=model, variant=variant, at_once=at_once, device=device
    )


def _absolute_model(model: str) -> str:
    """The same model, however the folder is called in which it is asked for."""
    from colorcli.model.weights import find_weights

    try:
        found = find_weights(model)
    except WeightsError:
        return model   # it is told where it is loaded; a stand-in needs none
    return str(found.absolute()) if found == Path(model).expanduser() else model
