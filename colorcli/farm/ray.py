"""Ray, which starts workers on other machines and carries orders there and answers back; known to this file alone."""

import contextlib
import importlib.util
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from colorcli.errors import DeviceError, MissingExtraError, UsageError
from colorcli.farm.cluster import LostError
from colorcli.farm.orders import Answer, EngineOrder, Order
from colorcli.farm.worker import VERSION, Worker

LOCAL = "ray"
WHERE = re.compile(r"ray|ray:auto|ray:(?P<host>[^/\s]+:\d{1,5})|(?P<client>ray://[^/\s]+:\d{1,5})")
MOST_ATTEMPTS = 3                 # to become a client
MOST_CALLS = 4                    # to a worker at the same time: a take waits while orders come
STORE_BYTES = 512 * 2**20         # for orders and answers on their way, where Ray is started here
MOST_THREADS = 16                 # of a worker on the CPU, where it has a machine for itself
SECONDS_TO_ANSWER = 10.0
SECONDS_TO_REST = 0.5
SECONDS_UNREACHABLE = 30.0        # before a worker that cannot be reached counts as lost

# Read when Ray is imported, or started here. What the user has set stays.
RAY_SETTINGS = {
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",           # Ray tells nothing on stdout, where a farm reads our own lines
    "RAY_USAGE_STATS_ENABLED": "0",             # nothing is sent anywhere unless it was asked for
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a worker without a GPU of its own sees none
    "RAY_worker_niceness": "0",                 # the workers are what the user waits for
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a worker may be."""

    node: str          # Ray's name for the machine
    number: int        # of the worker there
    host: str
    cpus: int
    gpu: bool

    def __str__(self) -> str:
        return self.host


@dataclass(eq=False)
class _Actor:
    """A worker, how many orders it was given, and since when it cannot be reached."""

    handle: Any
    ordered: int = 0
    unreachable: float | None = None
    rests_until: float | None = None   # it is not asked before


def address_of(where: str) -> str:
    """What `--on` names, as Ray wants it: "local" for this machine. Raises UsageError."""
    match = WHERE.fullmatch(where)
    if match is None:
        raise UsageError(
            f"--on {where} is no place to color on",
            hint="ray (this machine), ray:auto (the cluster it is part of), ray:HOST:6379 or ray://HOST:10001",
        )
    if where == LOCAL:
        return "local"
    return match["client"] or match["host"] or "auto"


def check_ray() -> None:
    """Raise MissingExtraError if Ray is not installed. Imports nothing."""
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("--on ray needs the package ray", hint="pip install 'colorcli[ray]'")


class RayCluster:
    """A cluster of Ray: one that runs somewhere, or one of this machine alone, which is started and stopped with it."""

    def __init__(self, address: str, workers: int | None = None, device: str = "auto") -> None:
        """workers: how many; None: one a GPU, or where there is none (or device is "cpu") one a machine."""
        self._address, self._workers, self._device = address, workers, device
        self._ray: Any = None

    @property
    def most(self) -> int | None:
        """How many workers were asked for."""
        return self._workers

    def open(self) -> None:
        """Connect, or start Ray here. Raises DeviceError."""
        for name, value in RAY_SETTINGS.items():
            os.environ.setdefault(name, value)
        ray = importlib.import_module("ray")
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        own = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
        for attempts_left in reversed(range(MOST_ATTEMPTS)):
            try:
                _reach(self._address)
                ray.init(address=self._address, **quiet, **(own if self._address == "local" else {}))
                break
            except (OSError, RuntimeError, ValueError) as error:
                # A busy head may take longer to make room for a client than it allows itself.
                if not isinstance(error, ConnectionAbortedError) or not attempts_left:
                    raise _no_cluster(self._address, error) from error
        self._ray = ray

    def settle(self) -> None:
        """Take SIGTERM back: Ray's own handler for it lets the process abort three seconds later."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))

    def places(self) -> Sequence[Place]:
        """A place a GPU, or where none is asked for or none is there, one or more a machine with CPUs of its own."""
        try:
            nodes = [node for node in self._ray.nodes() if node["Alive"]]
        except Exception as error:
            raise DeviceError(f"the Ray cluster is gone: {_first_line(error)}", hint="start it again") from error
        places = _places_on(nodes, self._workers, self._device)
        if not places and self._device.startswith("cuda"):
            raise DeviceError("no machine of the Ray cluster has a GPU", hint="leave --device out")
        return places

    def start(self, place: Any, order: EngineOrder) -> _Actor:
        """Start a worker; it waits until Ray has room for it there."""
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        actor = self._ray.remote(Worker).options(
            max_concurrency=MOST_CALLS,
            num_cpus=place.cpus,
            num_gpus=1 if place.gpu else 0,
            scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(place.node, soft=False),
            max_restarts=0,
            max_task_retries=0,
        )
        worker = _Actor(actor.remote(VERSION))
        self.order(worker, order)
        return worker

    def order(self, worker: _Actor, order: Order) -> None:
        """Give an order."""
        worker.handle.order.remote(worker.ordered, order)
        worker.ordered += 1

    def take(self, worker: _Actor, seen: int, seconds: float) -> tuple[_Actor, Any]:
        """Ask for answers; one that could not be reached a moment ago only after a while."""
        if worker.unreachable is not None and worker.rests_until is None:
            worker.rests_until = time.monotonic() + SECONDS_TO_REST
            return worker, None
        worker.rests_until = None
        return worker, worker.handle.take.remote(seen, seconds)

    def first(self, asked: Sequence[tuple[_Actor, Any]], seconds: float) -> Sequence[tuple[_Actor, Any]]:
        """Wait until some answers are there."""
        now = time.monotonic()
        rested = [one for one in asked if one[1] is None and (one[0].rests_until or 0.0) <= now]
        references = [reference for _, reference in asked if reference is not None]
        if not references:
            time.sleep(0.0 if rested else seconds)
            return rested
        there, _ = self._ray.wait(references, num_returns=1, timeout=0 if rested else seconds)
        found = set(there)
        if found and len(references) > 1:   # others may be there by now as well
            more, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
            found |= set(more)
        return [*rested, *(one for one in asked if one[1] in found)]

    def answers(self, asked: tuple[_Actor, Any]) -> Sequence[tuple[int, Answer]]:
        """The answers. Raises LostError."""
        worker, reference = asked
        if reference is None:
            return ()
        try:
            answers: Sequence[tuple[int, Answer]] = self._ray.get(reference)
        except self._ray.exceptions.ActorUnavailableError as error:
            # Ray does not know yet whether it is gone; asked again it will.
            now = time.monotonic()
            worker.unreachable = worker.unreachable or now
            if now - worker.unreachable > SECONDS_UNREACHABLE:
                raise LostError("it cannot be reached") from error
            return ()
        except Exception as error:
            raise LostError(_why(error)) from error
        worker.unreachable = None
        return answers

    def end(self, worker: _Actor) -> None:
        """Kill a worker."""
        with contextlib.suppress(Exception):
            self._ray.kill(worker.handle)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._ray is not None:
            self._ray.shutdown()


def _no_cluster(address: str, error: Exception) -> DeviceError:
    """Why there is no cluster, in words."""
    if address == "auto":
        return DeviceError(
            "this machine is part of no Ray cluster", hint="`ray start --head` makes it one; --on ray needs none"
        )
    why = error.strerror if isinstance(error, OSError) and error.strerror else _first_line(error)
    if address == "local":
        return DeviceError(f"Ray cannot be started here: {why}", hint="leave --on out to color in this process")
    return DeviceError(f"there is no Ray cluster at {address}: {why}", hint="is it running there? see `ray status`")


def _reach(address: str) -> None:
    """Raise OSError if nothing answers at an address; Ray itself would go on trying for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()


def _places_on(nodes: Sequence[Mapping[str, Any]], workers: int | None, device: str) -> list[Place]:
    """Where workers are to be, on what Ray tells of its machines."""
    gpus = {node["NodeID"]: int(node["Resources"].get("GPU", 0)) for node in nodes}
    if device != "cpu" and any(gpus.values()):
        found = [place for node in nodes for place in _on_gpus(node, gpus[node["NodeID"]])]
        return found if workers is None else _in_turn(found)
    with_cpus = [node for node in nodes if node["Resources"].get("CPU", 0) >= 1]
    if device.startswith("cuda") or not with_cpus:
        return []
    if workers is None:
        return [_on_cpu(node, 0, 1) for node in with_cpus]
    each = -(-workers // len(with_cpus))
    return _in_turn([_on_cpu(node, number, each) for node in with_cpus for number in range(each)])


def _on_gpus(node: Mapping[str, Any], gpus: int) -> Iterator[Place]:
    """One place a GPU, with its share of the CPUs to read and write with, but not more than that takes."""
    cpus = max(1, min(4, int(node["Resources"].get("CPU", 1)) // max(gpus, 1)))
    for number in range(gpus):
        yield Place(node["NodeID"], number, node["NodeManagerHostname"], cpus, gpu=True)


def _on_cpu(node: Mapping[str, Any], number: int, count: int) -> Place:
    """The place of one of `count` workers that share a machine."""
    cpus = max(1, min(MOST_THREADS, int(node["Resources"]["CPU"]) // count))
    return Place(node["NodeID"], number, node["NodeManagerHostname"], cpus, gpu=False)


def _in_turn(places: Sequence[Place]) -> list[Place]:
    """The first place of each machine, then the second of each."""
    return sorted(places, key=lambda place: place.number)


def _why(error: Exception) -> str:
    """Why a worker is lost, in few words."""
    text = str(error)
    if "ModuleNotFoundError" in text or "No module named" in text:
        missing = re.search(r"No module named '([\w.]+)'", text)
        return f"{missing[1] if missing else 'a package'} is not installed there"
    known = {
        r"running low on memory": "memory ran out there",
        r"\bnode (has )?(died|was terminated)|health check": "its machine died",
        r"worker process has died|unexpectedly exits": "its process was killed, or crashed",
        r"ray\.kill": "it was killed",
    }
    return next((words for pattern, words in known.items() if re.search(pattern, text)), _first_line(error))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    more = f" {lines[-1][:200]}" if lines[0].endswith(":") and len(lines) > 1 else ""
    return f"{type(error).__name__}: {lines[0][:200]}{more}"
