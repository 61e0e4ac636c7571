"""Calls in turns, on a clock of the test: what is set up before them is not timed, and a time that is up ends them."""

import pytest

from colorcli.speed import measure
from colorcli.speed.compare import frames_to_pay
from colorcli.speed.measure import interleaved


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = process_time = monotonic

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(measure, "time", made)
    return made


def test_what_prepares_a_call_is_done_each_time_and_not_timed(clock: Clock) -> None:
    happened: list[str] = []

    def call(name: str, seconds: float) -> None:
        happened.append(name)
        clock.wait(seconds)

    calls = {"one": lambda: call("one", 3), "other": lambda: call("other", 2)}
    found = interleaved(calls, rounds=2, warm_up=0, prepare={"other": lambda: call("set up", 100)})
    assert happened == ["one", "set up", "other", "set up", "other", "one"]
    assert found["seconds"]["other"]["longest"] == 2 and found["ratios"]["other"]["median"] == 1.5


@pytest.mark.parametrize(("until", "rounds"), [(-1, 1), (9, 1), (10, 2), (15, 3), (1000, 4)])
def test_no_round_begins_that_would_not_be_over_in_time_but_the_first(clock: Clock, until: float, rounds: int) -> None:
    found = interleaved({"one": lambda: clock.wait(5)}, rounds=4, warm_up=0, until=until)
    assert found["rounds"] == rounds and clock.now == 5 * rounds


def test_a_minute_of_compiling_is_saved_again_after_as_many_frames_as_its_savings_fit_in() -> None:
    assert frames_to_pay(60, 0.25) == 240 and frames_to_pay(60, 0.7) == 86
    assert frames_to_pay(60, 0) is None and frames_to_pay(60, -0.1) is None
