"""Reads the golden numbers: `load(name)` gives one fixture, whatever its sizes and cases are.

The folder is COLORCLI_GOLDEN, or `../shared/golden` beside the checkout; a test whose fixture is not there is skipped.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor


@dataclass(frozen=True)
class Fixture:
    """One reference run: its numbers, what went in, what came out, and the weights under their published names."""

    name: str
    config: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    weights: dict[str, Tensor]

    def tolerance(self, tensor: str) -> float:
        """Give the largest allowed absolute difference of the output `tensor`."""
        for pattern, value in self.config.get("tolerance_abs_for", {}).items():
            if fnmatchcase(tensor, pattern):
                return float(value)
        return float(self.config["tolerance_abs"])

    def check(self, tensor: str, actual: Tensor | np.ndarray) -> float:
        """Fail unless `actual` is the output `tensor`; give the largest absolute difference. Integers must be equal."""
        found = torch.from_numpy(actual.copy()) if isinstance(actual, np.ndarray) else actual.detach().cpu()
        expected = self.outputs[tensor]
        shapes = tuple(found.shape), tuple(expected.shape)
        assert shapes[0] == shapes[1], f"{self.name}: {tensor} is {shapes[0]}, not {shapes[1]}"
        difference = float((found.double() - expected.double()).abs().max()) if expected.numel() else 0.0
        allowed = self.tolerance(tensor) if expected.is_floating_point() else 0.0
        log = os.environ.get("COLORCLI_GOLDEN_LOG")
        if log:
            with Path(log).open("a") as lines:
                lines.write(json.dumps([self.name, tensor, difference, allowed]) + "\n")
        assert difference <= allowed, f"{self.name}: {tensor} differs by {difference:.3g}, allowed is {allowed:.3g}"
        return difference

    def input_family(self, prefix: str) -> list[Tensor]:
        """Give the inputs `prefix.0`, `prefix.1`, ... as a list."""
        return _family(self.inputs, prefix)

    def weights_under(self, prefix: str) -> dict[str, Tensor]:
        """Give the weights whose names begin with `prefix`, without it."""
        return {name.removeprefix(prefix): value for name, value in self.weights.items() if name.startswith(prefix)}


def count(name: str, part: str) -> int:
    """Tell how many cases the list `part` of a fixture's numbers has, without its tensors; 1 where it is absent.

    For making one test of each case: the one test of an absent fixture is there to be skipped.
    """
    path = folder() / name / "config.json"
    return len(json.loads(path.read_text())[part]) if path.is_file() else 1


def folder() -> Path:
    """Give the folder of the golden numbers; it need not exist."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "golden"
    return Path(os.environ.get("COLORCLI_GOLDEN") or beside)


@lru_cache(maxsize=2)
def load(name: str) -> Fixture:
    """Read the fixture `name`; skips the running test where it is absent."""
    path = folder() / name
    if not (path / "config.json").is_file():
        pytest.skip(f"golden numbers {name} are not in {folder()} (set COLORCLI_GOLDEN)")
    config = json.loads((path / "config.json").read_text())
    inputs, outputs = (load_file(path / f"{part}.safetensors") for part in ("inputs", "outputs"))
    return Fixture(name, config, inputs, outputs, _weights(path, config))


def _weights(path: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    if not (path / "weights_recipe.json").is_file():
        built = path / "weights.safetensors"
        return load_file(built) if built.is_file() else {}
    recipe = json.loads((path / "weights_recipe.json").read_text())
    weights, digest = {}, hashlib.sha256()
    for position, (name, shape, base, scale) in enumerate(recipe["tensors"]):
        stream = np.random.RandomState((recipe["seed"] * 1000003 + position) % 2**32)
        draws = stream.random_sample(int(np.prod(shape, dtype=np.int64)))
        value = (base + scale * (2 * draws - 1)).astype("<f4").reshape(shape)
        digest.update(value.tobytes())
        weights[name] = torch.from_numpy(value)
    expected = config.get("weights", {}).get("sha256_of_float32_bytes_in_recipe_order")
    assert expected in (None, digest.hexdigest()), f"the weights of {path.name} are not those of the reference run"
    return weights


def _family(tensors: dict[str, Tensor], prefix: str) -> list[Tensor]:
    found = []
    while f"{prefix}.{len(found)}" in tensors:
        found.append(tensors[f"{prefix}.{len(found)}"])
    return found
