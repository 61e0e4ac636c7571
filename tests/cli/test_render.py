"""How a run begins and ends: what is refused at once, what is summed up, and which failure the exit code tells."""

from pathlib import Path

import pytest

from colorcli import console
from colorcli.cli.render import check_engine, parse_batch, summarize
from colorcli.errors import ColorcliError, FrameError, MissingExtraError, OutputError, UsageError, WeightsError
from colorcli.shot.manifest import Failure, FrameRecord, Totals
from colorcli.shot.plan import FrameJob, ShotPlan, ShotRequest
from colorcli.shot.run import RunResult

OUT = Path("walk_color")


def plan_of(count: int) -> ShotPlan:
    names = [f"walk.{number:04d}.png" for number in range(1, count + 1)]
    jobs = tuple(FrameJob(number=1, sequence="walk.", source=Path("walk") / name, output=OUT / name) for name in names)
    return ShotPlan("walk", Path("walk"), OUT, (Path("key.png"),), (), jobs, (), (), ShotRequest(("walk",)))


def failed_record(number: int) -> FrameRecord:
    failure = Failure(kind="frame", message=f"walk.{number:04d}.png ends too early", hint="save or copy it again")
    return FrameRecord(frame=f"walk.{number:04d}", number=number, sequence="walk.", status="failed", error=failure)


def test_a_run_that_went_well_says_what_was_done_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    totals = Totals(frames=4, written=2, skipped=1, held=1, seconds=3.2)
    summarize(RunResult(totals, 0, None, ()), [plan_of(4)], console.Plain())
    out, err = capsys.readouterr()
    assert out.splitlines() == ["4 frames in 3.2 s: 2 colored, 1 up to date, 1 repeated", "  walk_color"]
    assert err == ""


def test_frames_that_failed_are_listed_at_the_end_with_their_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    result = RunResult(Totals(frames=4, written=3, failed=1), 7, None, (failed_record(2),))
    with pytest.raises(FrameError) as caught:
        summarize(result, [plan_of(4)], console.Plain())
    assert caught.value.message == "1 of 4 frames failed: walk.0002"
    assert capsys.readouterr().err.splitlines() == [
        "note:  walk.0002 failed: walk.0002.png ends too early",
        "try:   save or copy it again",
    ]


def test_what_stopped_the_run_counts_more_than_the_frames_that_failed() -> None:
    full = OutputError("walk_color cannot be written: the disk is full")
    with pytest.raises(ColorcliError) as caught:
        summarize(RunResult(Totals(failed=1), 2, full, (failed_record(2),)), [plan_of(4)], console.Silent())
    assert caught.value is full


def test_a_run_that_was_refused_before_its_first_frame_sums_up_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    missing = WeightsError("there is no model xl here", hint="colorcli models pull xl")
    with pytest.raises(WeightsError) as caught:
        summarize(RunResult(Totals(), 5, missing, ()), [plan_of(4)], console.Plain())
    assert caught.value is missing
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("code", "kind"), [(130, "interrupted"), (143, "terminated")])
def test_a_run_that_was_stopped_says_how_to_go_on(capsys: pytest.CaptureFixture[str], code: int, kind: str) -> None:
    summarize(RunResult(Totals(written=1), code, None, ()), [plan_of(4)], console.Plain())
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"colorcli: error[{kind}]: {kind}; what is finished stays, the same command goes on from there"


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "", "cuda1"])
def test_a_device_that_does_not_exist_is_refused_before_torch_is_loaded(device: str) -> None:
    with pytest.raises(UsageError, match="is no device"):
        check_engine(device, "auto")


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "mps"])
def test_real_devices_pass(device: str) -> None:
    check_engine(device, "auto")


def test_xformers_on_the_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match="does not run on cpu"):
        check_engine("cpu", "xformers")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        check_engine("cuda", "xformers")
    assert "pip install xformers" in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "65", "9999"])
def test_a_batch_is_a_small_number_or_auto(text: str) -> None:
    with pytest.raises(UsageError, match="--batch"):
        parse_batch(text)
    assert (parse_batch("auto"), parse_batch("8")) == (None, 8)


def test_half_precision_is_refused_on_the_cpu_before_anything_is_loaded() -> None:
    with pytest.raises(UsageError) as caught:
        check_engine("cpu", "auto", "fp16")
    assert "bf16" in str(caught.value.hint)
    check_engine("cpu", "auto", "bf16")
