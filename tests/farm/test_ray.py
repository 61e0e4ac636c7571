"""A real cluster of two machines, each with processes of its own: one is lost in the middle of a shot."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from colorcli.cli.main import main
from colorcli.errors import UsageError
from colorcli.farm.ray import Place, _places_on, address_of
from colorcli.shot.manifest import read_manifest, read_records
from tests.shot.same_files import Wanted, assert_same, command, plain_run
from tests.shot.studio import draw_shot

ROOT = Path(__file__).parent.parent.parent


@dataclass
class TwoMachines:
    """A head without workers, and two machines with one CPU each."""

    cluster: Any
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
        """Pull the plug of a machine."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)


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
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 * 2**20}
        two = TwoMachines(Cluster(initialize_head=True, head_node_args=head))
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_on_a_cluster_and_the_next_goes_on(
    machines: TwoMachines, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    shot = draw_shot(tmp_path / "walk", range(1, 61))
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
    assert 0 < len(records) < 60
    assert sorted(record.frame for record in records) == pictures   # none is there without its record
    assert main(typed) == 0
    again = [record for record in read_records(out) if record.status == "skipped"]
    assert {record.frame for record in again} == set(pictures)
    assert len(list(out.glob("*.png"))) == 60


# The last of those that use both machines: starting another one takes long.
def test_a_machine_that_is_lost_in_the_middle_costs_no_frame(machines: TwoMachines, tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", range(1, 41))
    typed = [str(shot), "--ref", str(tmp_path / "key.png"), "--engine", "stand-in", "--set", "canvas.area=16384"]
    assert main([*typed, "-o", str(tmp_path / "plain"), "-q"]) == 0
    out = tmp_path / "out"
    lost = threading.Event()

    def pull_the_plug() -> None:
        while sum(record.status == "written" for record in read_records(out)) < 6:
            time.sleep(0.05)
        machines.lose_one()
        lost.set()

    threading.Thread(target=pull_the_plug, daemon=True).start()
    assert main([*typed, "-o", str(out), "--on", machines.where]) == 0
    assert lost.wait(30)
    pictures = {path.name: path.read_bytes() for path in sorted(out.glob("*.png"))}
    assert pictures == {path.name: path.read_bytes() for path in sorted((tmp_path / "plain").glob("*.png"))}
    assert len(pictures) == 40
    assert any("was lost" in note for note in read_manifest(out).runs[-1].notes)
    assert main(["manifest", "verify", str(out)]) == 0


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
