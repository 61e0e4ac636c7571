"""Frames on a cluster: the same pictures as from one process, whatever is lost on the way."""

import _thread
import hashlib
import logging
import random
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from colorcli.errors import DeviceError, FrameError, WeightsError
from colorcli.farm.orders import Answer, CloseOrder, Done, EngineOrder, FrameOrder, Order, Ready, ShotOrder
from colorcli.farm.transfer import sweep_after
from colorcli.presets import LayerSettings, Preset, SamplingSettings, SteadySettings, WarmStartSettings
from colorcli.shot.manifest import FrameRecord, read_manifest, read_records
from tests.farm.threads import Studio, Thread, Threads, color_on, with_other_weights
from tests.shot.studio import FakeColorizer, Listener, Outcome, as_painted, cannot_color, color, draw, draw_shot

ALONE = as_painted()
STEADY = as_painted(sampling=SamplingSettings(start="match"), steady=SteadySettings(on=True, reach=2))
WARM = as_painted(sampling=SamplingSettings(start="noise"), warm_start=WarmStartSettings(on=True, every=4))
# Frame number -> drawing: held ones, some of them again later, and a gap.
WALK = {1: 1, 2: 2, 3: 2, 4: 2, 5: 3, 6: 4, 7: 2, 8: 5, 10: 6, 11: 7, 12: 8, 13: 9}


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    for number, drawn in WALK.items():
        draw(tmp_path / "walk" / f"walk.{number:04d}.png", drawn)
    draw_shot(tmp_path / "other", (1, 2))   # and the key
    return tmp_path / "walk"


def fingerprints(out: Path) -> dict[str, tuple[str | None, str | None]]:
    return {record.frame: (record.fingerprint, record.output_sha256) for record in read_records(out)}


@pytest.mark.parametrize("collect", [False, True], ids=["shared", "collected"])
@pytest.mark.parametrize("preset", [ALONE, STEADY, WARM], ids=["alone", "steady", "warm"])
def test_a_crew_gives_the_files_and_records_of_one_process(
    walk: Path, tmp_path: Path, preset: Preset, collect: bool
) -> None:
    plain = color(walk, preset=preset, out=tmp_path / "plain")
    crewed = color_on(Threads(3), walk, preset=preset, out=tmp_path / "crew", collect=collect)
    assert crewed.result.exit_code == plain.result.exit_code == 0
    assert crewed.pictures() == plain.pictures()
    assert len(crewed.pictures()) == len(WALK)
    assert fingerprints(tmp_path / "crew") == fingerprints(tmp_path / "plain")
    assert crewed.listener.status() == plain.listener.status()
    # Nothing else lies in OUT, and a process that colors by itself takes all of it for its own.
    assert {path.name for path in (tmp_path / "crew").iterdir() if path.is_file()} == {
        path.name for path in (tmp_path / "plain").iterdir() if path.is_file()
    }
    again = color(walk, preset=preset, out=tmp_path / "crew")
    assert set(again.listener.status().values()) == {"skipped"}


def test_layers_come_back_with_their_frames(walk: Path, tmp_path: Path) -> None:
    preset = ALONE.model_copy(update={"layers": LayerSettings(names=("line", "matte"), files=("sequences", "exr"))})
    color(walk, preset=preset, out=tmp_path / "plain")
    color_on(Threads(2), walk, preset=preset, out=tmp_path / "crew", collect=True)
    plain, crewed = (
        {path.relative_to(out): path.read_bytes() for path in (*out.rglob("*.png"), *out.rglob("*.exr"))}
        for out in (tmp_path / "plain", tmp_path / "crew")
    )
    assert crewed == plain
    assert len(crewed) == 4 * len(WALK)


@pytest.mark.parametrize("collect", [False, True], ids=["shared", "collected"])
def test_what_came_back_is_known_again_without_being_read(
    walk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collect: bool
) -> None:
    """The stamps in the records are those of this machine's files, not of those that lay on a worker's disk."""
    time.sleep(0.1)   # drawings as new as these would be read again in any case
    color_on(Threads(2), walk, out=tmp_path / "out", collect=collect)
    read: list[str] = []
    digest = hashlib.file_digest

    def counted(file: Any, name: Any) -> Any:
        read.append(str(file.name))
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    again = color(walk, out=tmp_path / "out")
    assert again.result.totals.skipped == len(WALK)
    assert read == []


def test_what_workers_were_sent_is_taken_away(walk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    seen: list[int] = []

    def heard(cluster: Threads, thread: Thread, answer: Answer) -> None:
        seen.append(len(list((tmp_path / "scratch").rglob("*.png"))))

    color_on(Threads(2, heard=heard), walk, collect=True)
    assert max(seen) > 0
    assert list((tmp_path / "scratch").iterdir()) == []


def test_drawings_are_colored_once_by_all_workers_together(walk: Path) -> None:
    studio = Studio()
    outcome = color_on(Threads(4), walk, studio=studio, preset=ALONE)
    assert studio.colored == len(set(WALK.values()))
    assert outcome.result.totals.held == len(WALK) - len(set(WALK.values()))


def test_a_second_run_connects_to_nothing(walk: Path) -> None:
    color_on(Threads(2), walk)
    cluster = Threads(2)
    again = color_on(cluster, walk)
    assert again.result.totals.skipped == len(WALK)
    assert cluster.opened == 0


def test_the_manifest_says_who_colored_how_much(walk: Path) -> None:
    color_on(Threads(2), walk, preset=ALONE)
    (run,) = read_manifest(walk.with_name("walk_color")).runs
    assert run.device == "cpu"
    (note,) = run.notes
    assert note.startswith("frames by machine: ")
    assert note.endswith(f": {len(set(WALK.values()))}")


@pytest.mark.parametrize("collect", [False, True], ids=["shared", "collected"])
def test_a_drawing_that_is_painted_over_on_its_way_is_not_the_one_that_others_hold(
    walk: Path, tmp_path: Path, collect: bool
) -> None:
    """Frames 3, 4 and 7 hold the drawing of frame 2, which becomes another one after it was handed out."""
    plain = color(walk, preset=ALONE, out=tmp_path / "plain")
    painted: list[str] = []

    def changed(place: str, order: Order) -> Order:
        names = [job.name for job in order.jobs] if isinstance(order, FrameOrder) else []
        if "walk.0002" in names and not painted:
            painted.append("walk.0002")
            draw(walk / "walk.0002.png", 40)
            assert isinstance(order, FrameOrder)
            now = {path: Path(path).read_bytes() for path in order.files}
            return replace(order, files=now)
        return order

    crewed = color_on(Threads(1, changed=changed), walk, preset=ALONE, out=tmp_path / "crew", collect=collect)
    assert painted
    pictures, held = crewed.pictures(), plain.pictures()
    assert [pictures[name] == held[name] for name in ("walk.0003.png", "walk.0004.png", "walk.0007.png")] == [True] * 3
    assert pictures["walk.0002.png"] != held["walk.0002.png"]
    again = color(walk, preset=ALONE, out=tmp_path / "crew")
    assert set(again.listener.status().values()) == {"skipped"}


def test_several_shots_are_colored_one_after_the_other_by_the_same_workers(walk: Path, tmp_path: Path) -> None:
    studio = Studio()
    outcome = color_on(Threads(2), [walk, tmp_path / "other"], studio=studio, out=tmp_path / "out")
    assert outcome.result.totals.frames == len(WALK) + 2
    assert outcome.listener.shots == ["walk", "other"]
    assert len(studio.colorizers) == 2
    assert (tmp_path / "out" / "other" / "walk.0002.png").is_file()


def losing(after: int, forever: bool, count: int = 1) -> Threads:
    """A cluster of three, of which `count` are lost when so many frames are done: those that gave the last ones."""
    done: list[str] = []

    def heard(cluster: Threads, thread: Thread, answer: Answer) -> None:
        if isinstance(answer, Done):
            done.append(answer.record.frame)
            if after <= len(done) < after + count:
                cluster.lose(thread, forever)

    return Threads(3, heard=heard)


def test_a_worker_that_is_lost_while_it_tidies_up_keeps_nobody_from_being_sent_home(walk: Path) -> None:
    ready: set[str] = set()
    both = threading.Event()   # who is not ready has nothing to tidy up

    def heard(cluster: Threads, thread: Thread, answer: Answer) -> None:
        if isinstance(answer, Ready):
            ready.add(thread.place)
        if len(ready) == 2:
            both.set()

    def changed(place: str, order: Order) -> Order:
        if isinstance(order, CloseOrder) and place == "node0":
            cluster.lose(cluster.threads[0])
        return order

    cluster = Threads(2, heard=heard, changed=changed)
    studio = Studio(make=lambda: FakeColorizer(before_color=lambda count: both.wait(20)))
    color_on(cluster, walk, studio=studio, collect=True)
    other = next(thread for thread in cluster.threads if thread.place == "node1")
    assert cluster.threads[0].place == "node0" and both.is_set()
    assert other.lost.is_set()   # it was ended


@pytest.mark.parametrize("forever", [False, True], ids=["process", "machine"])
@pytest.mark.parametrize("collect", [False, True], ids=["shared", "collected"])
@pytest.mark.parametrize("preset", [ALONE, STEADY, WARM], ids=["alone", "steady", "warm"])
def test_the_frames_of_a_lost_worker_are_colored_by_others(
    walk: Path, tmp_path: Path, preset: Preset, collect: bool, forever: bool
) -> None:
    plain = color(walk, preset=preset, out=tmp_path / "plain")
    cluster = losing(3, forever)
    crewed = color_on(cluster, walk, preset=preset, out=tmp_path / "crew", collect=collect)
    assert crewed.result.exit_code == 0
    assert crewed.pictures() == plain.pictures()
    assert fingerprints(tmp_path / "crew") == fingerprints(tmp_path / "plain")
    assert [text for text in crewed.listener.warnings if "was lost (somebody pulled the plug)" in text]


def test_a_frame_that_its_workers_die_of_fails_after_three_and_the_others_are_done(walk: Path) -> None:
    """The worker dies as soon as the poisoned frame is ordered, in company or alone."""
    lost: list[int] = []

    def changed(place: str, order: Order) -> Order:
        if isinstance(order, FrameOrder) and any(job.name == "walk.0005" for job in order.jobs):
            lost.append(len(order.jobs))
            cluster.lose(next(thread for thread in reversed(cluster.threads) if thread.place == place))
        return order

    cluster = Threads(3, changed=changed)
    outcome = color_on(cluster, walk)
    assert outcome.result.exit_code == 7
    assert [record.frame for record in outcome.result.failed] == ["walk.0005"]
    error = outcome.result.failed[0].error
    assert error is not None and "3 workers were lost while they had it" in error.message
    assert len(lost) == 3
    assert lost[1:] == [1, 1]   # where it may happen again it is alone
    assert outcome.result.totals.written + outcome.result.totals.held == len(WALK) - 1


def test_when_every_worker_is_lost_the_run_ends_and_what_is_finished_stays(walk: Path) -> None:
    outcome = color_on(losing(4, True, count=3), walk)
    assert isinstance(outcome.result.error, DeviceError)
    assert outcome.result.error.message == "every worker was lost"
    assert outcome.result.exit_code == 6
    there = [record for record in read_records(walk.with_name("walk_color")) if record.status == "written"]
    assert there and all((walk.with_name("walk_color") / f"{record.frame}.png").is_file() for record in there)
    again = color_on(Threads(1), walk)
    assert again.result.exit_code == 0
    assert len(again.pictures()) == len(WALK)


def test_what_a_lost_worker_left_half_written_is_taken_away_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "line").mkdir()
    left = [".walk.0003.png.4321-0abc12.tmp", "line/.walk.0003.png.4321-0abc13.tmp"]
    others = [".walk.0003.png.999-0abc12.tmp", ".walk.0004.png.4321-0abc12.tmp", ".manifest.json.4321-0abc12.part",
              "walk.0003.png"]  # fmt: skip
    for name in (*left, *others):
        (tmp_path / name).touch()
    sweep_after(tmp_path, 4321, {"walk.0003"})
    assert not any((tmp_path / name).exists() for name in left)
    assert all((tmp_path / name).exists() for name in others)


def test_a_cluster_and_a_process_on_one_out_do_nothing_twice(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", range(1, 25))
    distinct = color(shot, out=tmp_path / "plain").colorizer.colored
    studio = Studio(make=lambda: FakeColorizer(before_color=lambda count: time.sleep(0.02)))
    alone = FakeColorizer(before_color=lambda count: time.sleep(0.02))
    outcomes: list[Outcome] = []
    beside = threading.Thread(target=lambda: outcomes.append(color(shot, out=tmp_path / "out", colorizer=alone)))
    beside.start()
    crewed = color_on(Threads(2), shot, out=tmp_path / "out", studio=studio)
    beside.join()
    assert crewed.result.exit_code == outcomes[0].result.exit_code == 0
    assert studio.colored + alone.colored == distinct
    assert crewed.pictures() == {path.name: path.read_bytes() for path in sorted((tmp_path / "plain").glob("*.png"))}


def test_a_machine_that_comes_later_helps(walk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colorcli.farm.dispatcher.SECONDS_BETWEEN_LOOKS", 0.0)

    def heard(cluster: Threads, thread: Thread, answer: Answer) -> None:
        if isinstance(answer, Done) and "late" not in cluster.names:
            cluster.names.append("late")

    cluster = Threads(1, heard=heard)
    studio = Studio(make=lambda: FakeColorizer(before_color=lambda count: time.sleep(0.1)))
    color_on(cluster, walk, studio=studio)
    assert [thread.place for thread in cluster.threads] == ["node0", "late"]
    assert all(thread.finished for thread in cluster.threads)


def test_no_more_workers_are_started_than_asked_for(walk: Path) -> None:
    cluster = Threads(5, most=2)
    color_on(cluster, walk)
    assert len(cluster.threads) == 2


def test_a_worker_with_other_weights_colors_nothing(walk: Path) -> None:
    def changed(place: str, order: Order) -> Order:
        return with_other_weights(order) if isinstance(order, EngineOrder) and place == "node0" else order

    cluster = Threads(2, changed=changed)
    outcome = color_on(cluster, walk)
    assert outcome.result.exit_code == 0
    assert [thread.finished > 0 for thread in cluster.threads] == [False, True]
    assert any("is not the one of the machine that hands out" in text for text in outcome.listener.warnings)


def test_where_all_have_other_weights_the_run_ends_with_what_to_do(walk: Path) -> None:
    def changed(place: str, order: Order) -> Order:
        return with_other_weights(order) if isinstance(order, EngineOrder) else order

    outcome = color_on(Threads(2, changed=changed), walk)
    assert outcome.result.exit_code == 5
    assert outcome.result.error is not None and "colorcli models verify" in str(outcome.result.error.hint)


def test_another_version_on_the_workers_ends_the_run(walk: Path) -> None:
    outcome = color_on(Threads(2, version="0.0.9, method 1"), walk)
    assert outcome.result.exit_code == 5
    assert outcome.result.error is not None and "0.0.9, method 1" in outcome.result.error.message


class Broken(FakeColorizer):
    """Its device fails at the second frame."""

    def color(self, *given: Any, **named: Any) -> Any:
        if self.asked == 1:
            raise DeviceError("the card has fallen off the bus", hint="start the machine again")
        return super().color(*given, **named)


def test_a_worker_whose_device_fails_is_left_out_and_the_others_go_on(walk: Path, tmp_path: Path) -> None:
    plain = color(walk, out=tmp_path / "plain")
    kinds = iter([Broken, FakeColorizer])
    outcome = color_on(Threads(2), walk, out=tmp_path / "out", studio=Studio(make=lambda: next(kinds)()))
    assert outcome.result.exit_code == 0
    assert outcome.pictures() == plain.pictures()
    assert any("the others do: the card has fallen off the bus" in text for text in outcome.listener.warnings)


def test_where_all_devices_fail_the_run_ends_as_a_plain_one(walk: Path, tmp_path: Path) -> None:
    plain = color(walk, out=tmp_path / "plain", colorizer=Broken())
    outcome = color_on(Threads(2), walk, out=tmp_path / "out", studio=Studio(make=Broken))
    assert outcome.result.exit_code == plain.result.exit_code == 6
    assert outcome.result.error is not None and plain.result.error is not None
    assert outcome.result.error.message == plain.result.error.message
    assert color_on(Threads(2), walk, out=tmp_path / "out").result.exit_code == 0


def test_a_model_that_no_worker_can_load_ends_the_run(walk: Path) -> None:
    def missing() -> FakeColorizer:
        raise WeightsError("the weights of xl are not installed", hint="colorcli models pull xl")

    outcome = color_on(Threads(2), walk, studio=Studio(make=missing))
    assert outcome.result.exit_code == 5
    assert outcome.result.error is not None and outcome.result.error.hint == "colorcli models pull xl"


@pytest.mark.parametrize("collect", [False, True], ids=["shared", "collected"])
def test_an_out_that_cannot_be_written_ends_the_run_as_a_plain_one(walk: Path, tmp_path: Path, collect: bool) -> None:
    for out in ("plain", "out"):
        (tmp_path / out / "walk.0005.png" / "somebody's folder").mkdir(parents=True)
    plain = color(walk, out=tmp_path / "plain")
    outcome = color_on(Threads(2), walk, out=tmp_path / "out", collect=collect)
    assert outcome.result.exit_code == plain.result.exit_code
    assert type(outcome.result.error) is type(plain.result.error)


def test_a_key_that_cannot_be_used_ends_its_shot_and_the_next_goes_on(walk: Path, tmp_path: Path) -> None:
    class Picky(FakeColorizer):
        def encode_reference(self, key: Any, preset: Preset) -> Any:
            if not self.encoded:
                self.encoded += 1
                raise FrameError("it shows nobody", hint="take another one")
            return super().encode_reference(key, preset)

    outcome = color_on(Threads(1), [walk, tmp_path / "other"], out=tmp_path / "out", studio=Studio(make=Picky))
    assert outcome.result.exit_code == 3
    assert outcome.result.error is not None and "it shows nobody" in outcome.result.error.message
    assert not list((tmp_path / "out" / "walk").glob("*.png"))
    assert len(list((tmp_path / "out" / "other").glob("*.png"))) == 2


def another_folder(place: str, order: Order) -> Order:
    """On its way an order comes to a machine where OUT is another folder."""
    if isinstance(order, ShotOrder) and order.probe is not None and place == "node0":
        return replace(order, probe=(order.probe[0], "what lies there has another content"))
    return order


def test_a_machine_that_does_not_share_the_storage_is_left_out(walk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colorcli.farm.worker.SECONDS_FOR_A_NEW_FILE", 0.0)
    cluster = Threads(2, changed=another_folder)
    outcome = color_on(cluster, walk)
    assert outcome.result.exit_code == 0
    assert [thread.finished > 0 for thread in cluster.threads] == [False, True]
    assert any("does not see the folder" in text for text in outcome.listener.warnings)


def test_where_none_shares_it_the_shot_ends_and_collect_is_named(walk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colorcli.farm.worker.SECONDS_FOR_A_NEW_FILE", 0.0)
    outcome = color_on(Threads(1, changed=another_folder), walk)
    assert outcome.result.exit_code == 3
    assert outcome.result.error is not None and "--collect" in str(outcome.result.error.hint)


def test_a_frame_that_one_machine_cannot_read_is_colored_by_another(walk: Path) -> None:
    def changed(place: str, order: Order) -> Order:
        if isinstance(order, ShotOrder) and place == "node0":
            lost = [replace(job, source=job.source.parent / "away" / job.source.name) for job in order.plan.jobs]
            return replace(order, plan=replace(order.plan, jobs=tuple(lost)))
        return order

    told: dict[str, list[FrameRecord]] = {"node0": [], "node1": []}
    has_failed = threading.Event()   # the other machine must not be done before

    def heard(cluster: Threads, thread: Thread, answer: Answer) -> None:
        if isinstance(answer, Done):
            told[thread.place].append(answer.record)
            if thread.place == "node0":
                has_failed.set()

    studio = Studio(make=lambda: FakeColorizer(before_color=lambda count: has_failed.wait(20)))
    outcome = color_on(Threads(2, changed=changed, heard=heard), walk, studio=studio)
    assert outcome.result.exit_code == 0
    assert len(outcome.pictures()) == len(WALK)
    failed = {record.frame for record in told["node0"] if record.status == "failed"}
    assert failed and len(failed) == len(told["node0"])
    assert failed <= {record.frame for record in told["node1"] if record.status == "written"}


@pytest.mark.parametrize("collect", [False, True], ids=["shared", "collected"])
def test_a_frame_that_cannot_be_colored_fails_as_in_a_plain_run(walk: Path, tmp_path: Path, collect: bool) -> None:
    (walk / "walk.0006.png").write_bytes(b"no picture")
    plain = color(walk, out=tmp_path / "plain", colorizer=FakeColorizer(before_color=cannot_color(1)))
    studio = Studio(make=lambda: FakeColorizer(before_color=cannot_color(1)))
    crewed = color_on(Threads(1), walk, out=tmp_path / "crew", studio=studio, collect=collect)
    assert crewed.result.exit_code == plain.result.exit_code == 7

    def failures(records: tuple[FrameRecord, ...]) -> list[tuple[str, object]]:
        return [(record.frame, record.error) for record in records]

    assert failures(crewed.result.failed) == failures(plain.result.failed)
    assert len(crewed.result.failed) == 5   # one cannot be read, another is held for four frames
    assert crewed.pictures() == plain.pictures()


class Interrupting(Listener):
    """Somebody presses Ctrl-C after some frames."""

    def frame(self, record: FrameRecord, done: int, total: int) -> None:
        super().frame(record, done, total)
        if done == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("collect", [False, True], ids=["shared", "collected"])
def test_ctrl_c_keeps_what_is_finished_and_the_next_run_goes_on_from_there(
    walk: Path, tmp_path: Path, collect: bool
) -> None:
    plain = color(walk, preset=ALONE, out=tmp_path / "plain")
    studio = Studio(make=lambda: FakeColorizer(before_color=lambda count: time.sleep(0.05)))
    out = tmp_path / "crew"
    stopped = color_on(Threads(2), walk, preset=ALONE, out=out, studio=studio, listener=Interrupting(), collect=collect)
    assert stopped.result.exit_code == 130
    kept = [record for record in read_records(out) if record.status == "written"]
    assert studio.colored == len(kept)   # a frame that was begun is finished and recorded
    assert 3 <= len(kept) < len(set(WALK.values()))
    assert read_manifest(out).runs[-1].exit_code == 130
    assert not [path for path in out.rglob("*") if path.name.endswith((".tmp", ".part"))]
    again = Studio()
    finished = color_on(Threads(2), walk, preset=ALONE, out=out, studio=again, collect=collect)
    assert finished.result.exit_code == 0
    assert again.colored == len(set(WALK.values())) - len(kept)
    assert finished.pictures() == plain.pictures()


def test_ctrl_c_while_nothing_is_connected_ends_at_once(walk: Path) -> None:
    """A cluster that does not answer holds up its own thread alone."""
    never = threading.Event()

    class Silent(Threads):
        def open(self) -> None:
            never.wait(20)

    threading.Timer(0.5, _thread.interrupt_main).start()
    started = time.monotonic()
    outcome = color_on(Silent(2), walk)
    never.set()
    assert outcome.result.exit_code == 130
    assert time.monotonic() - started < 8


def test_a_worker_that_does_not_come_to_an_end_is_killed_when_the_run_is_stopped(
    walk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colorcli.farm.dispatcher.SECONDS_TO_STOP", 0.5)
    awake = threading.Event()

    def slow(count: int) -> None:
        if count == 3:
            awake.wait(30)

    started = time.monotonic()
    studio = Studio(make=lambda: FakeColorizer(before_color=slow))
    outcome = color_on(Threads(1), walk, preset=ALONE, studio=studio, listener=StoppedAt(3))
    awake.set()
    assert outcome.result.exit_code == 130
    assert time.monotonic() - started < 15
    assert sum(record.status == "written" for record in read_records(walk.with_name("walk_color"))) == 3


def test_a_cluster_that_is_not_there_ends_the_run_with_its_words(walk: Path) -> None:
    outcome = color_on(Threads(2, error=DeviceError("there is no cluster", hint="start one")), walk)
    assert outcome.result.exit_code == 6
    assert outcome.result.error is not None and outcome.result.error.message == "there is no cluster"
    assert not [record for record in read_records(walk.with_name("walk_color")) if record.status != "missing"]


def test_a_warning_of_all_workers_is_told_once(walk: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "colorcli")   # a quiet command may have run in this process before

    class Warning(FakeColorizer):
        def encode_reference(self, key: object, preset: object) -> object:  # type: ignore[override]
            logging.getLogger("colorcli.test").warning("the key is pale")
            return super().encode_reference(key, preset)  # type: ignore[arg-type]

    outcome = color_on(Threads(3), walk, studio=Studio(make=Warning))
    assert outcome.listener.warnings.count("the key is pale") == 1


def test_neighbors_stay_together_where_they_are_asked_for_each_other(tmp_path: Path) -> None:
    """24 frames by two workers: each asks the drawings of its own half and a few beside, not all of them."""
    shot = draw_shot(tmp_path / "long", range(1, 25))
    studio = Studio()
    color_on(Threads(2), shot, studio=studio, preset=STEADY)
    asked = sum(one.balloted for one in studio.colorizers)
    assert studio.colored == 24
    assert asked < 2 * 24


class StoppedAt(Listener):
    """Somebody presses Ctrl-C when so many frames are done, 0: nobody does."""

    def __init__(self, done: int) -> None:
        super().__init__()
        self.stop = done

    def frame(self, record: FrameRecord, done: int, total: int) -> None:
        super().frame(record, done, total)
        if done == self.stop:
            raise KeyboardInterrupt


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_lost_and_stopped_the_shot_comes_out_the_same_in_the_end(
    walk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Workers are lost at one of ten answers or orders, and every second run is stopped somewhere."""
    chance = random.Random(seed)
    monkeypatch.setattr("colorcli.farm.dispatcher.MOST_LOSSES", 100)
    monkeypatch.setattr("colorcli.farm.dispatcher.MOST_ATTEMPTS", 100)
    monkeypatch.setattr("colorcli.farm.dispatcher.SECONDS_BETWEEN_LOOKS", 0.1)
    preset, collect = chance.choice([ALONE, STEADY, WARM]), chance.random() < 0.5
    plain = color(walk, preset=preset, out=tmp_path / "plain")

    def heard(cluster: Threads, thread: Thread, answer: Answer) -> None:
        if chance.random() < 0.1:
            cluster.lose(thread)

    def changed(place: str, order: Order) -> Order:
        if isinstance(order, FrameOrder) and chance.random() < 0.1:
            cluster.lose(next(thread for thread in reversed(cluster.threads) if thread.place == place))
        return order

    out = tmp_path / "crew"
    for attempt in range(20):
        stop = chance.choice([0, chance.randint(1, 6)]) if attempt < 4 else 0
        cluster = Threads(chance.randint(1, 3), heard=heard, changed=changed)
        outcome = color_on(cluster, walk, preset=preset, out=out, collect=collect, listener=StoppedAt(stop))
        if outcome.result.exit_code == 0:
            break
        assert outcome.result.exit_code == 130
    assert outcome.pictures() == plain.pictures()
    assert fingerprints(out) == fingerprints(tmp_path / "plain")
    assert not [path for path in out.rglob("*") if path.name.endswith((".tmp", ".part", ".lease", ".alive"))]
