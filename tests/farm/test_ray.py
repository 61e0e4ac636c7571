"""A real cluster of two machines, each with processes of its own: one is lost in the middle of a shot."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from colorcli.cli.main import main
from colorcli.cli.render import Machine, load_for
from colorcli.errors import UsageError
from colorcli.farm.crew import ClusterCrew
from colorcli.farm.ray import Place, RayCluster, _places_on, _why, address_of
from colorcli.presets import CanvasSettings, Preset
from colorcli.shot.manifest import FrameRecord, read_manifest, read_records
from colorcli.shot.plan import ShotRequest, plan_shots
from colorcli.shot.run import run_plans
from colorcli.shot.stand_in import StandIn, stand_in_entry, stand_in_variant
from tests.shot.same_files import Wanted, assert_same, command, plain_run
from tests.shot.studio import Listener, draw_shot

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="machines are lost as Linux loses them")


@dataclass
class TwoMachines:
    """A head without workers, and two machines with one CPU each."""

    cluster: Any
    client_port: int
    nodes: list[Any] = field(default_factory=list)

    @property
    def where(self) -> str:
        """What is typed for --on."""
        return f"ray:{self.cluster.address}"

    def fill_up(self) -> None:
        """Start as many machines as are missing."""
        while len(self.nodes) < 2:
            self.nodes.append(self.cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20))

    def lose_one(self) -> None:
        """Pull the plug of a machine: Ray's own processes there, and the workers, which would live on for a while."""
        node = self.nodes.pop()
        (raylet,) = node.all_processes["raylet"]
        workers = children_of(raylet.process.pid)
        self.cluster.remove_node(node, allow_graceful=False)
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def children_of(pid: int) -> list[int]:
    """The processes that a process has started, as Linux tells it."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


@pytest.fixture(scope="module")
def started() -> Iterator[TwoMachines]:
    """Ray itself, for all tests of this file."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # The workers import colorcli from here; a lost machine is noticed soon; nobody is asked at home.
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_health_check_period_ms", "1000")
        patch.setenv("RAY_health_check_failure_threshold", "3")
        patch.setenv("OMP_NUM_THREADS", "1")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 * 2**20,
                "ray_client_server_port": port}  # fmt: skip
        two = TwoMachines(Cluster(initialize_head=True, head_node_args=head), port)
        try:
            yield two
        finally:
            two.cluster.shutdown()


@pytest.fixture
def machines(started: TwoMachines) -> TwoMachines:
    started.fill_up()
    return started


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Wanted:
    return plain_run(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("more", [(), ("--collect",)], ids=["shared", "collected"])
def test_two_machines_give_the_files_of_one_run(
    machines: TwoMachines, wanted: Wanted, tmp_path: Path, more: Sequence[str]
) -> None:
    assert main([*command(wanted, tmp_path / "out"), "--on", machines.where, *more]) == 0
    assert_same(wanted, tmp_path / "out")
    (run,) = read_manifest(tmp_path / "out").runs
    assert run.engine == "stand-in"
    assert main(["manifest", "verify", str(tmp_path / "out")]) == 0


def test_a_client_of_a_cluster_elsewhere_gets_the_files_of_one_run(
    machines: TwoMachines, wanted: Wanted, tmp_path: Path
) -> None:
    where = f"ray://127.0.0.1:{machines.client_port}"
    typed = command(wanted, tmp_path / "out", "--on", where, "--collect")
    # In a process of its own: Ray keeps a client apart from a driver only there.
    done = subprocess.run([sys.executable, "-m", "colorcli", *typed], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same(wanted, tmp_path / "out")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_on_a_cluster_and_the_next_goes_on(
    machines: TwoMachines, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    shot = draw_shot(tmp_path / "walk", range(1, 41))
    out = tmp_path / "out"
    typed = [str(shot), "--ref", str(tmp_path / "key.png"), "--engine", "stand-in", "-o", str(out), "--on",
             machines.where, "--progress", "plain"]  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "colorcli", *typed], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        told = ""
        while "colored" not in told:
            told = process.stdout.readline()
            assert told, process.stderr.read()
        process.send_signal(number)
        assert process.wait(60) == code, process.stderr.read()
        assert process.stderr.read().splitlines()[-1].startswith("colorcli: error[")
    records = [record for record in read_records(out) if record.status == "written"]
    pictures = sorted(path.stem for path in out.glob("*.png"))
    assert 0 < len(records) < 40
    assert sorted(record.frame for record in records) == pictures   # none is there without its record
    assert main(typed) == 0
    again = [record for record in read_records(out) if record.status == "skipped"]
    assert {record.frame for record in again} == set(pictures)
    assert len(list(out.glob("*.png"))) == 40


class PlugPuller(Listener):
    """Loses a machine when six frames are done and both machines color."""

    def __init__(self, machines: TwoMachines, crew: ClusterCrew) -> None:
        super().__init__()
        self.machines, self.crew = machines, crew

    def frame(self, record: FrameRecord, done: int, total: int) -> None:
        super().frame(record, done, total)
        if done == 6:
            while self.crew.ready < 2:
                time.sleep(0.05)
            self.machines.lose_one()


# The last of those that use both machines: starting another one takes long.
def test_a_machine_that_is_lost_in_the_middle_costs_no_frame(machines: TwoMachines, tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", range(1, 41))
    preset = Preset(canvas=CanvasSettings(area=16384))
    model, variant = stand_in_entry("mini"), stand_in_variant("mini")
    plain = plan_shots(ShotRequest((str(shot),), (str(tmp_path / "key.png"),), tmp_path / "plain", preset=preset))
    run_plans(plain, preset, Listener(), load_colorizer=StandIn, model=model, variant=variant)
    plans = plan_shots(ShotRequest((str(shot),), (str(tmp_path / "key.png"),), tmp_path / "out", preset=preset))
    load = partial(load_for, Machine(engine="stand-in"), 0)
    cluster = RayCluster(machines.cluster.address)
    with ClusterCrew(cluster, preset, load, model=model, variant=variant) as crew:
        told = PlugPuller(machines, crew)
        result = run_plans(plans, preset, told, load_colorizer=StandIn, model=model, variant=variant, crew=crew)
    assert result.exit_code == 0
    pictures = {path.name: path.read_bytes() for path in sorted((tmp_path / "out").glob("*.png"))}
    assert pictures == {path.name: path.read_bytes() for path in sorted((tmp_path / "plain").glob("*.png"))}
    assert len(pictures) == 40
    assert any("was lost" in text for text in told.warnings)
    assert main(["manifest", "verify", str(tmp_path / "out")]) == 0


def test_where_no_cluster_is_the_run_ends_with_what_to_do(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shot = draw_shot(tmp_path / "walk", (1,))
    typed = [str(shot), "--ref", str(tmp_path / "key.png"), "--engine", "stand-in", "--on", "ray:127.0.0.1:1"]
    assert main(typed) == 6
    told = capfd.readouterr().err.splitlines()
    assert any(line.startswith("error: there is no Ray cluster at 127.0.0.1:1") for line in told)
    assert told[-1].startswith("colorcli: error[device]")


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("ray", "local"),
        ("ray:auto", "auto"),
        ("ray:head:6379", "head:6379"),
        ("ray://head.studio:10001", "ray://head.studio:10001"),
    ],
)
def test_on_names_a_cluster_as_ray_does(typed: str, address: str) -> None:
    assert address_of(typed) == address


@pytest.mark.parametrize("typed", ["", "rays", "ray:", "ray://", "ray:head", "ray://head", "ssh://head", "ray:a b:1"])
def test_another_place_is_refused_with_those_that_there_are(typed: str) -> None:
    with pytest.raises(UsageError, match="is no place") as refused:
        address_of(typed)
    assert "ray:auto" in str(refused.value.hint)


@pytest.mark.parametrize("typed", [("--workers", "2"), ("--collect",), ("--on", "ray", "--workers", "0"),
                                   ("--on", "ray", "--device", "cuda:1"), ("--on", "dask")])  # fmt: skip
def test_options_of_a_cluster_that_make_no_sense_are_refused(tmp_path: Path, typed: tuple[str, ...]) -> None:
    shot = draw_shot(tmp_path / "walk", (1,))
    assert main([str(shot), "--ref", str(tmp_path / "key.png"), "--engine", "stand-in", *typed]) == 2
    assert not (tmp_path / "walk_color").exists()


def node(name: str, **resources: float) -> dict[str, Any]:
    return {"NodeID": name, "NodeManagerHostname": f"{name}.studio", "Resources": resources}


def hosts(places: Sequence[Place]) -> list[str]:
    return [place.node for place in places]


def test_each_gpu_gets_a_worker_and_machines_without_one_none() -> None:
    nodes = [node("a", CPU=32, GPU=2), node("b", CPU=8), node("c", CPU=2, GPU=1)]
    places = _places_on(nodes, None, "auto")
    assert hosts(places) == ["a", "a", "c"]
    assert all(place.gpu for place in places)
    assert [place.cpus for place in places] == [4, 4, 2]


def test_without_gpus_each_machine_gets_one_worker_with_all_its_cpus() -> None:
    places = _places_on([node("head"), node("a", CPU=8), node("b", CPU=2)], None, "auto")
    assert [(place.node, place.cpus, place.gpu) for place in places] == [("a", 8, False), ("b", 2, False)]


def test_workers_that_were_asked_for_share_the_machines_in_turn() -> None:
    places = _places_on([node("a", CPU=8), node("b", CPU=2)], 4, "cpu")
    assert hosts(places) == ["a", "b", "a", "b"]
    assert [place.cpus for place in places] == [4, 1, 4, 1]


def test_the_cpu_is_used_where_it_is_asked_for_also_beside_gpus() -> None:
    assert [place.gpu for place in _places_on([node("a", CPU=8, GPU=2)], None, "cpu")] == [False]
    assert _places_on([node("a", CPU=8)], None, "cuda") == []


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ("The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR (1) the process was "
         "killed by the OOM killer due to high memory usage", "its process was killed, or crashed"),
        ("The actor died because its node has died. Node Id: d3d9", "its machine died"),
        ("Task was killed due to the node running low on memory.", "memory ran out there"),
        ("The actor died because of an error raised in its creation task\nModuleNotFoundError: No module named "
         "'colorcli'", "colorcli is not installed there"),
    ],
)  # fmt: skip
def test_why_a_worker_was_lost_is_said_in_few_words(told: str, why: str) -> None:
    assert _why(RuntimeError(told)) == why
