"""Regional compilation of the denoising network: the blocks that it repeats, compiled once for each shape of theirs.

`torch.compile` joins what lies between the matrix products (norms, gates, sums) into few kernels. Compiling the whole
network takes minutes; its repeated blocks are a few shapes, which all of them share. What cannot be compiled runs as it
is: a machine without a compiler colors the same frames, slower.
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from colorcli.model.machine import out_of_memory

log = logging.getLogger(__name__)

# What compiling is worth, for `compile_pays`. Estimates until a card was measured: `colorcli bench --compare` tells the
# seconds of the first call and the ratio of the later ones.
COMPILE_SECONDS = 60.0   # two widths of transformer blocks, a dozen shapes of residual blocks, cold
GAIN = 0.2               # share of the network's time that goes away; published for SDXL on data center cards
# Of an uncompiled row (a frame in one branch of guidance) on 1024 x 1024 pixels, on a fast card. A slower card takes
# longer for a row and hardly longer to compile, so there it pays sooner than this says.
ROW_SECONDS = {"xl": 0.02, "xlv2": 0.02, "v2": 0.01}
PIXELS = 1024 * 1024

MOST_SHAPES = 64   # of one function; a canvas of xl has 12 of residual blocks, for each count of rows


def compile_pays(model: str, device: torch.device | str, rows: float, canvas_pixels: int) -> bool:
    """Whether compiling takes less time than it saves, on `rows` calls of the network for one frame and branch.

    Never on a CPU, where it takes a minute and a half for a gain of a tenth, and never for mini.
    """
    if torch.device(device).type != "cuda" or model not in ROW_SECONDS:
        return False
    return rows * ROW_SECONDS[model] * canvas_pixels / PIXELS * GAIN > COMPILE_SECONDS


class Regions:
    """Calls functions compiled, each compiled when it is first called; what cannot be is called as it is.

    backend: of `torch.compile`, by name or as a function. A compiled call gives what a plain one gives, but for
    rounding. Functions whose tensors change their sizes from call to call say so by `sizes_vary`.
    """

    def __init__(self, backend: str | Callable[..., Any] = "inductor") -> None:
        self._backend = backend
        self._compiled: dict[Callable[..., Tensor], Callable[..., Tensor]] = {}
        self._failed: set[Callable[..., Tensor]] = set()
        self.failure: str | None = None   # why something could not be compiled
        self._resting = False             # everything is called as it is
        self._most = 0                    # frames that were colored together

    def begin(self, frames: int) -> None:
        """Tell how many frames are colored together now: the fewer ones at the end of a shot are not compiled for."""
        self._most = max(self._most, frames)
        self._resting = frames < self._most

    def begin_anew(self) -> None:
        """Tell that from now on fewer frames may be colored together."""
        self._most = 0

    def __call__(self, function: Callable[..., Tensor], *args: Any) -> Tensor:
        """Call a function, compiled if that is possible. Raises what the function itself raises."""
        if self._resting or function in self._failed:
            return function(*args)
        if function not in self._compiled:
            log.info("compiling %s", function.__name__)
            self._compiled[function] = torch.compile(function, backend=self._backend, fullgraph=True, dynamic=False)
        try:
            return self._compiled[function](*args)
        except Exception as error:
            if out_of_memory(error):
                raise   # fewer frames at once help, another way of computing does not
            result = function(*args)   # raises if the mistake is in the call itself
            self._failed.add(function)
            if self.failure is None:
                self.failure = _in_one_line(error)
                log.warning("the network cannot be compiled here, it runs as it is: %s", self.failure)
            return result

    def room(self) -> AbstractContextManager[Any]:
        """Inside, a function may have as many shapes as a network has; torch would stop to compile at 8 of them."""
        return torch._dynamo.config.patch(recompile_limit=MOST_SHAPES)   # type: ignore[no-untyped-call, unused-ignore]

    def sizes_vary(self, tensors: Iterable[Tensor]) -> None:
        """Tell that the first axis of tensors has another size for every frame: one compilation serves all."""
        for tensor in tensors:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)

    def describe(self) -> str:
        """Tell for the manifest whether the network is compiled: "on", or why not."""
        return "on" if self.failure is None else f"failed: {self.failure}"


def _in_one_line(error: Exception) -> str:
    """Give the first line that says something of an error of the compiler, whose texts are pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # "backend='inductor' raised:" stands before what was raised.
    telling = next((line for line in lines if not line.endswith("raised:")), type(error).__name__)
    return telling[:200]
