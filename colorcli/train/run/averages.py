"""Running averages of weights (EMA): quieter than the weights themselves, and what users get."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from colorcli.train.recipe import AveragesSection


class Averages:
    """The averages of a stage's weights; of none if the recipe has no such section.

    weights: by name, `<module>.<weight>`. saved: averages of a checkpoint; one that lacks begins with its weight.
    """

    def __init__(
        self, section: AveragesSection | None, weights: Mapping[str, Tensor], saved: Mapping[str, Tensor]
    ) -> None:
        self._decay = section.decay if section else 0.0
        names = [name for name in weights if section and (section.of == "all" or name.startswith("unet."))]
        self._weights = {name: weights[name] for name in names}
        self.tensors = {
            name: saved[name].to(weight.device) if name in saved else weight.detach().clone()
            for name, weight in self._weights.items()
        }

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Take the weights after a step (0 is the first) into the averages; the first steps are forgotten soon."""
        if self.tensors:
            decay = min(self._decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(self.tensors.values()), list(self._weights.values()), 1 - decay)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Put the averages into the networks for a while."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, average in self.tensors.items():
            weight = self._weights[name]
            kept = weight.detach().clone()
            weight.copy_(average)
            average.copy_(kept)
