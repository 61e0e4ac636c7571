"""What a training run tells while it goes on; who tells it to whom is decided by the caller."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class StageNews:
    """A stage that begins, or goes on."""

    run: str          # name of the recipe
    name: str         # of the stage
    number: int       # of the stage in the run, from 1
    stages: int       # of the run
    step: int         # steps that are done
    steps: int        # of the stage


@dataclass(frozen=True)
class StepNews:
    """One step that is done."""

    step: int             # steps done, from 1
    losses: Mapping[str, float]   # running means
    seconds: float        # a step takes, on average since the run was started
    seconds_left: float   # of this stage


class Progress(Protocol):
    """Whoever is told of a run."""

    def say(self, text: str) -> None:
        """Tell something that is no step: data being drawn, a model being loaded or written."""
        ...

    def warn(self, text: str) -> None:
        """Tell something that is wrong and stops nothing."""
        ...

    def stage(self, news: StageNews) -> None:
        """Tell that a stage begins, or goes on."""
        ...

    def step(self, news: StepNews) -> None:
        """Tell of each step."""
        ...

    def line(self, stage: str, line: Mapping[str, float], seconds_left: float) -> None:
        """Tell a line of the curve."""
        ...

    def end(self) -> None:
        """Tell that nothing more comes, for whatever reason."""
        ...


class Lines:
    """A line for each line of the curve and for all that is no step."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def say(self, text: str) -> None:
        self._tell(text)

    def warn(self, text: str) -> None:
        self._tell(f"note: {text}")

    def stage(self, news: StageNews) -> None:
        self._tell(f"stage {news.number} of {news.stages}, {news.name}: step {news.step} of {news.steps}")

    def step(self, news: StepNews) -> None:
        """Steps are not told one by one."""

    def line(self, stage: str, line: Mapping[str, float], seconds_left: float) -> None:
        values = " ".join(f"{key} {value:g}" for key, value in line.items())
        self._tell(f"{stage}: {values} minutes_left {seconds_left / 60:.0f}")

    def end(self) -> None:
        """Nothing is left open."""
