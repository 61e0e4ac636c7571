"""Data of a few random pictures for every kind that stages learn from."""

import numpy as np
import torch
from torch import Tensor

from colorcli.model.match import GEOMETRY
from colorcli.prepare.region_views import VIEW_SIDE, VIEWS
from colorcli.train.data.batch import PictureBatch
from colorcli.train.data.characters import CharacterSet, Sample
from colorcli.train.data.pairs import PairSet, RegionPair
from colorcli.train.turn import Turn
from tests.tiny_mini import PARTS, TAGS, TINY

ROWS, COLUMNS = 64, 96   # of every canvas, pixels


def sample(seed: int) -> Sample:
    rng = np.random.default_rng(seed)

    def noise(*shape: int) -> np.ndarray:
        return rng.integers(0, 256, shape, np.uint8)

    def shares(rows: int, columns: int) -> np.ndarray:
        return np.round(255 * rng.dirichlet(np.ones(PARTS), (rows, columns))).astype(np.uint8)

    return Sample(
        flat=noise(ROWS, COLUMNS, 3), line=noise(ROWS, COLUMNS), cells=shares(ROWS // 8, COLUMNS // 8),
        mask=noise(ROWS // 8, COLUMNS // 8),
        square_color=noise(256, 256, 3), square_line=noise(256, 256), square_cells=shares(32, 32),
        square_flat=noise(32, 32, 3), tags=rng.integers(0, 2, TAGS).astype(np.uint8),
    )


def characters(count: int = 4, poses: int = 2) -> CharacterSet:
    found = CharacterSet([])
    found.characters = [[sample(poses * c + pose) for pose in range(poses)] for c in range(count)]
    found.by_size = {(ROWS, COLUMNS): [(c, pose) for c in range(count) for pose in range(poses)]}
    return found


def pairs(count: int = 4, regions: int = 6) -> PairSet:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def views() -> Tensor:
        shape = regions, VIEWS, VIEW_SIDE, VIEW_SIDE
        return torch.randint(256, shape, dtype=torch.uint8, generator=generator)

    found, token = PairSet([]), PARTS + TINY.channels[0] + GEOMETRY
    found.pairs = [
        RegionPair(
            frame=normal(regions, token), key=normal(regions, token), color_of=torch.arange(regions) % 3,
            palette=normal(3, 3).sigmoid(), right=torch.eye(3, dtype=torch.bool).repeat(2, 1), rule=normal(regions, 3),
            pixels=torch.tensor([10, 50, 100, 200, 400, 800]),
            views=views(), key_views=views(),
        )
        for _ in range(count)
    ]
    return found


class Pictures:
    """Random pictures, whose masks are soft disks."""

    def batch(self, turn: Turn, size: int) -> PictureBatch:
        draw = turn.rng

        def picture(rows: int, columns: int) -> Tensor:
            return torch.from_numpy(draw.uniform(-1, 1, (size, 3, rows, columns))).float()

        def mask(rows: int, columns: int) -> Tensor:
            middles = torch.from_numpy(draw.uniform(0.3, 0.7, (2, size, 1, 1))).float()
            down, across = torch.meshgrid(torch.linspace(0, 1, rows), torch.linspace(0, 1, columns), indexing="ij")
            return (-8 * ((down - middles[0]).square() + (across - middles[1]).square())).exp()[:, None]

        sizes = torch.from_numpy(draw.uniform(64, 200, (size, 2))).float()
        return PictureBatch(
            image=picture(ROWS, COLUMNS),
            sketch=picture(ROWS, COLUMNS).amax(1, keepdim=True).expand(-1, 3, -1, -1).contiguous(),
            reference=picture(96, 96), sketch_mask=mask(ROWS, COLUMNS), reference_mask=mask(96, 96),
            size=torch.cat([sizes, torch.full((size, 1), float(ROWS))], dim=1),
            crop=torch.from_numpy(draw.uniform(0, 1, (size, 4))).float(), score=torch.full((size,), 6.0),
        )
