"""Whose turn it is: the place of one micro-batch in a run, from which everything random of it is drawn."""

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# Last word of the seeds: what is drawn for a batch says nothing of what its loss draws.
DATA, LOSS, LAYERS = 0, 1, 2


@dataclass(frozen=True)
class Turn:
    """One micro-batch of one process in one step of a stage.

    A step has `micros` micro-batches in each of `processes` processes. All that is random comes from the turn and from
    nothing that was drawn before, so a resumed run draws what an unbroken one would have drawn; and two processes draw
    what one process draws that has twice as many micro-batches.
    """

    seed: int           # of the run
    stage: str          # name of the stage
    step: int           # steps done before, 0..
    micro: int = 0      # micro-batches of this step done before, 0..micros-1
    process: int = 0    # 0..processes-1
    micros: int = 1
    processes: int = 1

    def __post_init__(self) -> None:
        assert self.step >= 0 and 0 <= self.micro < self.micros and 0 <= self.process < self.processes, self

    @property
    def number(self) -> int:
        """Running number of this micro-batch in its stage, over all steps and processes: no two have the same."""
        return (self.step * self.micros + self.micro) * self.processes + self.process

    @property
    def rng(self) -> np.random.Generator:
        """A generator for the data of this turn. It begins anew each time it is asked for: ask once, and hand it on."""
        return np.random.default_rng(self._words(DATA))

    @property
    def generator(self) -> "torch.Generator":
        """A CPU generator for the loss of this turn (timesteps, noise, drops), independent of `rng`; begins anew too.

        On the CPU whatever the device: one seed has to give one run on every machine.
        """
        import torch

        return torch.Generator("cpu").manual_seed(self._seed(LOSS))

    @property
    def layers_seed(self) -> int:
        """A seed for what layers draw by themselves, such as dropout; independent of the other two."""
        return self._seed(LAYERS)

    def _seed(self, purpose: int) -> int:
        return int(np.random.SeedSequence(self._words(purpose)).generate_state(1, np.uint64)[0]) >> 1

    def _words(self, purpose: int) -> list[int]:
        return [self.seed, zlib.crc32(self.stage.encode()), self.number, purpose]
