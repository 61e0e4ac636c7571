"""Which pictures make a batch and on which canvas: sizes of one area, and batches of like aspect ratio."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

LONGEST = 1312 / 736   # long side over short side of the narrowest canvas
SQUARES = 4            # times that the square is listed
BLOCK = 8              # batches whose pictures are mixed among each other
FIRST_SEED = 42        # of the order of epoch 0

Size = tuple[int, int]  # (height, width) in pixels


def canvas_sizes(side: int, multiple_of: int = 32) -> tuple[Size, ...]:
    """List the canvases whose height and width add up to twice `side`, the square four times.

    side: of the square, pixels. 1024 gives the sizes of the published XL training.
    """
    shorter = [short for short in range(side - multiple_of, 0, -multiple_of) if (2 * side - short) <= LONGEST * short]
    wide = [(short, 2 * side - short) for short in shorter]
    return ((side, side),) * SQUARES + tuple(wide) + tuple((width, height) for height, width in wide)


# The 768 pixel models; neither sums nor areas are equal.
SIZES_768: tuple[Size, ...] = ((768, 768),) * SQUARES + (
    (704, 832), (640, 896), (576, 960), (832, 704), (896, 640), (960, 576),
)  # fmt: skip
SIZES_512: tuple[Size, ...] = ((512, 512),)


@dataclass(frozen=True)
class PlannedBatch:
    """The pictures of one batch and their canvas."""

    pictures: NDArray[np.int64]  # numbers
    size: Size


class BatchPlan:
    """In which order pictures are seen, for any epoch: the same for all who ask, and nothing needs to be stored.

    No picture comes twice in an epoch, unless they are `repeated` to fill whole batches. Batches are asked for by their
    running number; processes that ask for different numbers see different pictures.
    """

    def __init__(
        self, width: NDArray[np.int32], height: NDArray[np.int32], batch: int, sizes: Sequence[Size],
        seed: int = FIRST_SEED, *, repeated: bool = False,
    ) -> None:
        """width, height: (N,) of all pictures, pixels. batch: pictures in one. sizes: of the canvas.

        repeated: no picture is left out of an epoch; the last batch is filled up with pictures that were there before.
        """
        assert len(width) == len(height) and batch > 0 and sizes, (len(width), len(height), batch, sizes)
        self.width, self.height, self.batch, self.sizes, self.seed = width, height, batch, tuple(sizes), seed
        self.repeated = repeated
        self._epoch = lru_cache(maxsize=2)(self._ordered)

    def batches_of_epoch(self) -> int:
        """Count the batches of an epoch, every one the same."""
        raise NotImplementedError

    def planned(self, number: int) -> PlannedBatch:
        """Give the batch of a running number, 0.. over all epochs."""
        epoch, row = divmod(number, self.batches_of_epoch())
        pictures = self._epoch(epoch)[row]
        return PlannedBatch(pictures, self._canvas(pictures, np.random.default_rng([self.seed, number])))

    def _ordered(self, epoch: int) -> NDArray[np.int64]:
        """Give the pictures of all batches of an epoch in order, (batches, batch)."""
        raise NotImplementedError

    def _canvas(self, pictures: NDArray[np.int64], rng: np.random.Generator) -> Size:
        """Choose the canvas of a batch."""
        raise NotImplementedError

    def _whole(self, count: int) -> int:
        """Count the batches that so many pictures make."""
        return -(-count // self.batch) if self.repeated else count // self.batch

    def _parted(self, ordered: NDArray[np.int64]) -> NDArray[np.int64]:
        """Cut pictures into batches, (batches, batch)."""
        whole = self._whole(len(ordered))
        return np.resize(ordered, (whole, self.batch))


class AspectPlan(BatchPlan):
    """Batches of like aspect ratio, each with the canvas nearest to it (the published XL training)."""

    def batches_of_epoch(self) -> int:
        """Count the batches of an epoch, every one the same."""
        return sum(self._whole(len(pool)) for pool in self._pools)

    @cached_property
    def _pools(self) -> list[NDArray[np.int64]]:
        """Part the pictures by their direction: landscape, portrait, square."""
        directions = (self.width > self.height, self.width < self.height, self.width == self.height)
        return [np.flatnonzero(there) for there in directions]

    def _ordered(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng(self.seed + epoch)
        batches = []
        for pool in self._pools:
            ratio = self.width[pool] / self.height[pool]
            ordered = pool[np.lexsort((pool, rng.random(len(pool)), ratio))]
            for first in range(0, len(ordered), BLOCK * self.batch):
                rng.shuffle(ordered[first : first + BLOCK * self.batch])
            batches.append(self._parted(ordered))
        together = np.concatenate(batches)
        rng.shuffle(together, axis=0)
        return together

    def _canvas(self, pictures: NDArray[np.int64], rng: np.random.Generator) -> Size:
        return canvas_for(self.width[pictures], self.height[pictures], self.sizes, rng)


class SegmentPlan(AspectPlan):
    """Batches of segments, each some pictures of one archive that lie in one direction; the canvas as in AspectPlan."""

    def __init__(
        self, width: NDArray[np.int32], height: NDArray[np.int32], archive: NDArray[np.uint32], batch: int,
        sizes: Sequence[Size], segment: int, seed: int = FIRST_SEED,
    ) -> None:
        """archive: (N,) a number for each picture's. segment: pictures in one; a batch is a multiple of it."""
        super().__init__(width, height, batch, sizes, seed)
        assert len(archive) == len(width) and batch % segment == 0, (len(archive), len(width), batch, segment)
        self.archive, self.segment = archive, segment

    def batches_of_epoch(self) -> int:
        """Count the batches of an epoch, every one the same."""
        return sum(self._segments(pool) * self.segment // self.batch for pool in self._pools)

    def _segments(self, pool: NDArray[np.int64]) -> int:
        """Count the whole segments of a pool."""
        return int((np.unique(self.archive[pool], return_counts=True)[1] // self.segment).sum())

    def _ordered(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng(self.seed + epoch)
        batches = []
        for pool in self._pools:
            ordered = pool[np.lexsort((rng.random(len(pool)), self.archive[pool]))]
            _, first, counts = np.unique(self.archive[ordered], return_index=True, return_counts=True)
            place = np.arange(len(ordered)) - np.repeat(first, counts)
            whole = place < np.repeat(counts // self.segment * self.segment, counts)
            segments = ordered[whole].reshape(-1, self.segment)
            rng.shuffle(segments, axis=0)
            batches.append(self._parted(segments.reshape(-1)))
        together = np.concatenate(batches)
        rng.shuffle(together, axis=0)
        return together


class ShuffledPlan(BatchPlan):
    """Batches of any pictures, each with a canvas drawn by lot (the published v1 and v2 training)."""

    def batches_of_epoch(self) -> int:
        """Count the batches of an epoch, every one the same."""
        return self._whole(len(self.width))

    def _ordered(self, epoch: int) -> NDArray[np.int64]:
        return self._parted(np.random.default_rng(self.seed + epoch).permutation(len(self.width)))

    def _canvas(self, pictures: NDArray[np.int64], rng: np.random.Generator) -> Size:
        return self.sizes[int(rng.integers(len(self.sizes)))]


def canvas_for(
    width: NDArray[np.int32], height: NDArray[np.int32], sizes: Sequence[Size], rng: np.random.Generator
) -> Size:
    """Choose the canvas of a batch whose pictures lie all in one direction: the nearest that every picture covers.

    width, height: (B,) pixels. A square is always among the candidates; a batch of squares draws one by lot.
    """
    squares = [size for size in sizes if size[0] == size[1]]
    assert squares, sizes
    wide, tall = width[0] > height[0], width[0] < height[0]
    if not wide and not tall:
        return squares[int(rng.integers(len(squares)))]
    ratio = float((np.maximum(width, height) / np.minimum(width, height)).min())
    candidates = squares + [
        size for size in sizes
        # Two pixels are left over, so that rounding never makes a picture smaller than its canvas.
        if (size[1] > size[0] if wide else size[0] > size[1]) and max(size) <= int(ratio * min(size)) - 2
    ]
    return min(candidates, key=lambda size: abs(max(size) / min(size) - ratio))
