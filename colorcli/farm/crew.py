"""Who colors what on a cluster: a crew, as a shot sees it, whose frames are handed out by another thread."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from colorcli.errors import DeviceError
from colorcli.farm.cluster import Cluster
from colorcli.farm.dispatcher import SECONDS_OF_SILENCE, Dispatcher
from colorcli.farm.orders import EngineOrder, ShotOrder
from colorcli.farm.paths import preset_with_paths, with_paths
from colorcli.farm.queue import Queue
from colorcli.farm.seat import FRAMES_AT_FIRST
from colorcli.farm.task import Shot, Task
from colorcli.farm.tidings import Tidings
from colorcli.farm.transfer import files_of_shot, leave_probe, read_files, sweep_after
from colorcli.presets import Preset
from colorcli.shot.drawings import Drawings
from colorcli.shot.engine import Colorizer, Engine
from colorcli.shot.manifest import FrameRecord, ModelEntry
from colorcli.shot.plan import FrameJob, ShotPlan
from colorcli.variants import Variant

SECONDS_TO_OPEN = 180.0   # a cluster


class ClusterCrew:
    """Colors frames on a cluster. A `Crew`, and a context in which it works."""

    def __init__(
        self,
        cluster: Cluster,
        preset: Preset,
        load: Callable[[Preset], Colorizer],
        *,
        collect: bool = False,
        model: ModelEntry | None = None,
        variant: Variant | None = None,
        at_once: int | None = 1,
        device: str = "auto",
    ) -> None:
        """load: called by each worker with its own form of the preset; has to be something that can be sent there.

        collect: workers share no storage with this machine; drawings are sent there and pictures back. The others are
        those of `run_plans`.
        """
        self._cluster = cluster
        self._collect = collect
        self._preset = preset_with_paths(preset, _absolute)
        order = EngineOrder(self._preset, load, (), model, variant, at_once, device)
        self._queue, self._tidings = Queue(), Tidings()
        self._dispatcher = Dispatcher(cluster, order, self._queue, self._tidings, collect)
        self._given: list[Future[FrameRecord]] = []   # of the shot
        self._shot: Shot | None = None
        self._shots = 0
        self._settled = False
        self._started = 0.0

    def __enter__(self) -> "ClusterCrew":
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    @property
    def room(self) -> int:
        """So many that no worker waits, and that what has something in common stays together."""
        stretch = self._shot.stretch if self._shot is not None else 1
        return max(FRAMES_AT_FIRST, sum(seat.depth + stretch + 1 for seat in self._dispatcher.seats))

    @property
    def ready(self) -> int:
        """How many workers have loaded the model."""
        return sum(seat.ready is not None for seat in self._dispatcher.seats)

    def start(self, engine: Engine) -> None:
        """Connect, and start the workers, without waiting."""
        if not self._dispatcher.is_started:
            self._started = time.monotonic()
            self._dispatcher.start((engine.model, *engine.network_entries))

    def begin(self, plan: ShotPlan, settings: str, key: str, drawings: Drawings | None) -> None:
        """A shot begins."""
        self._shots += 1
        plan = with_paths(replace(plan, missing=(), problems=()), _absolute)
        probe = None if self._collect else leave_probe(plan.out)
        order = ShotOrder(
            shot=self._shots,
            plan=plan,
            key=key,
            settings=settings,
            probe=None if probe is None else (probe.name, probe.read_text(encoding="utf-8")),
            files=read_files(files_of_shot(plan)) if self._collect else {},
        )
        places = {job.source.name: place for place, job in enumerate(plan.jobs)}
        warm_start, steady = self._preset.warm_start, self._preset.steady
        stretch = warm_start.every if warm_start.on else 2 * steady.reach if steady.on else 1
        self._given = []
        self._dispatcher.lost.clear()
        self._shot = Shot(self._shots, plan, order, drawings, places, stretch, warm_start.on, probe)

    def color(
        self, job: FrameJob, needed: Sequence[FrameJob], keep: Callable[[FrameRecord], FrameRecord]
    ) -> "Future[FrameRecord]":
        """Give the record of a frame, once a worker has colored it."""
        assert self._shot is not None and self._dispatcher.is_started, "start and begin come first"
        future: Future[FrameRecord] = Future()
        job, *needed = with_paths((job, *needed), _absolute)
        self._given.append(future)
        self._queue.put(Task(self._shot, job, tuple(needed), keep, future))
        return future

    def news(self) -> Sequence[str]:
        """What was not told yet."""
        self._settle()
        return self._tidings.take()

    def describe(self) -> Mapping[str, Any]:
        """What the workers use, and how many frames each of them colored."""
        return self._tidings.describe()

    def stop(self) -> None:
        """Wait for the frames that are being colored, and cancel the others; nothing is left of the shot then."""
        self._settle()
        if self._dispatcher.is_connected and not all(future.done() for future in self._given):
            self._dispatcher.stop()
        for future in self._given:
            future.cancel()
        if self._shot is not None and self._shot.probe is not None:
            with contextlib.suppress(OSError):
                self._shot.probe.unlink(missing_ok=True)
            for pid, stems in self._dispatcher.lost:
                sweep_after(self._shot.plan.out, pid, stems)

    def close(self) -> None:
        """Send the workers home."""
        self._dispatcher.close()

    def _settle(self) -> None:
        """What only the thread that runs the shot can do about a cluster that has opened, or does not open."""
        if self._dispatcher.is_connected and not self._settled:
            self._settled = True
            self._cluster.settle()
        dispatcher = self._dispatcher
        if dispatcher.is_started and not dispatcher.is_connected and self._queue.error is None:
            waited = time.monotonic() - self._started
            if waited > SECONDS_TO_OPEN:
                words = f"the cluster has not answered for {waited:.0f} s"
                dispatcher.give_up(DeviceError(words, hint="start it again"))
            elif waited > SECONDS_OF_SILENCE:
                self._tidings.tell(f"the cluster has not answered for {SECONDS_OF_SILENCE:.0f} s")


def _absolute(path: Path) -> Path:
    """A path that means the same in another folder; links and ".." stay as they are."""
    return path.absolute()
