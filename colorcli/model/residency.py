"""Moving the parts of a model between the computer's memory and the device, as the phases of a shot need them.

A part comes when a phase that needs it begins, and goes when its place is wanted: never inside a phase, so never inside
the loop over the steps.
"""

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from colorcli.model.memory import RUNTIME, MemoryProfile, Phase, parts_of

Tensors = Sequence[Tensor]
Move = Callable[[Tensors, torch.device | None], None]   # None: back to where they are kept


class Home:
    """Moves tensors to a device and back; on the way back nothing is copied, for the weights never change.

    The tensors stay in the computer's memory while they are on the device.
    """

    def __init__(self) -> None:
        self._kept: dict[int, Tensor] = {}

    def __call__(self, tensors: Tensors, device: torch.device | None) -> None:
        """Move tensors to a device, or, with None, back."""
        for tensor in tensors:
            kept = self._kept.setdefault(id(tensor), tensor.data)
            tensor.data = kept if device is None else kept.to(device, non_blocking=True)


class Residency:
    """Keeps on the device what the running phase needs, and whatever else has room. For one thread.

    components: name -> network, lying in the computer's memory. With a profile that does not move, everything goes to
    the device at once. move: what moves tensors; another one watches.
    """

    def __init__(
        self,
        components: Mapping[str, nn.Module],
        device: torch.device | str,
        profile: MemoryProfile,
        move: Move | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.profile = profile
        self._move = move or Home()
        self._parts = split_parts(components)
        self._bytes = {name: sum(tensor.nbytes for tensor in tensors) for name, tensors in self._parts.items()}
        self._there: list[str] = []   # parts on the device, the one used longest ago first
        self._running: Phase | None = None
        if not profile.moves:
            self._bring(list(self._parts))

    @property
    def there(self) -> frozenset[str]:
        """The parts that are on the device."""
        return frozenset(self._there)

    @contextlib.contextmanager
    def phase(self, name: Phase, activations: int = 0) -> Iterator[None]:
        """Run a phase: its parts are on the device inside the block; `activations` bytes are left free beside them."""
        assert self._running is None, f"{name} begins inside {self._running}"
        self._enter(name, activations)
        self._running = name
        try:
            yield
        finally:
            self._running = None

    def clear(self) -> None:
        """Take everything from the device that the next phase may not need; does nothing where nothing moves."""
        if self.profile.moves and self._running is None:
            self._leave(self._there)

    def _enter(self, name: Phase, activations: int) -> None:
        needed = parts_of(name, self._parts)
        if self.profile.budget is not None:
            room = self.profile.budget - RUNTIME - activations
            wanted = sum(self._bytes[part] for part in needed)
            others = [part for part in self._there if part not in needed]
            while others and wanted + sum(self._bytes[part] for part in others) > room:
                self._leave([others.pop(0)])
        self._bring([part for part in needed if part not in self._there])
        self._there.sort(key=needed.__contains__)   # stable: those just used come last

    def _bring(self, parts: Sequence[str]) -> None:
        for part in parts:
            self._there.append(part)   # first: a part of which only some fits is taken away again by `clear`
            self._move(self._parts[part], self.device)

    def _leave(self, parts: Sequence[str]) -> None:
        for part in list(parts):
            self._move(self._parts[part], None)
            self._there.remove(part)


def split_parts(components: Mapping[str, nn.Module]) -> dict[str, list[Tensor]]:
    """List the tensors of every part: of each component, but the U-Net's key and value layers on their own."""
    parts: dict[str, list[Tensor]] = {}
    for name, module in components.items():
        for path, tensor in (*module.named_parameters(), *module.named_buffers()):
            alone = name == "unet" and (".attn2.to_k." in path or ".attn2.to_v." in path)
            parts.setdefault("context" if alone else name, []).append(tensor)
    return parts


def free_caches() -> None:
    """Give memory back that is cached for later: to the devices, and to the computer's system."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    if sys.platform == "linux":
        # glibc keeps what is freed between two blocks that are still used: gigabytes, when weights came and went.
        with contextlib.suppress(OSError, AttributeError):   # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)
