"""Counts the memory that a call of a network needs beside its weights, on the meta device: nothing is computed."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class FusedAttention(TorchFunctionMode):
    """Attention as a fused kernel does it: nothing but the result is held, no matrix of queries by keys."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return function(*args, **(kwargs or {}))


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside and still held."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for given in _tensors((args, kwargs)):
            self._known.setdefault(given.untyped_storage()._cdata, 0)  # not made here: weights and inputs
        result = function(*args, **(kwargs or {}))
        for made in _tensors(result):
            storage = made.untyped_storage()
            if storage._cdata not in self._known:
                self._known[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._forget, storage._cdata)
        return result

    def _forget(self, storage: int) -> None:
        self.now -= self._known.pop(storage, 0)


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def peak_bytes(call: Callable[[], Any]) -> int:
    """Give the most that tensors made in a call hold at once.

    The smaller of two counts: what garbage of other tests, collected in the middle, leaves counted is not the call's.
    """
    return min(_peak_of(call) for _ in range(2))


def _peak_of(call: Callable[[], Any]) -> int:
    gc.collect()
    live = LiveBytes()
    with torch.inference_mode(), FusedAttention(), live:
        call()
    return live.peak
