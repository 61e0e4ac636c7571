"""What the stages of a run learn from: drawn, read or opened when the first stage asks for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from colorcli.train.dataset import CharacterSet, draw_shards
from colorcli.train.pairs import PairSet, read_shards
from colorcli.train.recipe import Recipe
from colorcli.train.stages import Data


class Sources:
    """The data of a run: what is trained on, and what is validated on or None."""

    def __init__(self, recipe: Recipe, run: Path, accelerator: Accelerator, say: Callable[[str], None]) -> None:
        self._recipe, self._run, self._accelerator, self._say = recipe, run, accelerator, say
        self._opened: dict[Data, tuple[Any, Any]] = {}

    def of(self, kind: Data) -> tuple[Any, Any]:
        """Give the data of a kind. The first process makes what is missing, while the others wait."""
        if kind not in self._opened:
            with self._accelerator.main_process_first():
                self._opened[kind] = SOURCES[kind](self._recipe, self._run, self._say)
        return self._opened[kind]


def characters(recipe: Recipe, run: Path, say: Callable[[str], None]) -> tuple[CharacterSet, CharacterSet]:
    """Draw characters: those to train on, and those of families that are never trained on."""
    drawings = recipe.drawings
    shards = draw_shards(run / "drawings", drawings.characters, drawings.poses, False, say)
    checks = draw_shards(run / "drawings", drawings.validation_characters, drawings.poses, True, say)
    train_set, check_set = CharacterSet(shards), CharacterSet(checks)
    say(f"{len(train_set.characters)} characters to train on, {len(check_set.characters)} to validate on")
    return train_set, check_set


def region_pairs(recipe: Recipe, run: Path, say: Callable[[str], None]) -> tuple[PairSet, PairSet]:
    """Read regions with the networks that the run has written last: those to train on, and those to validate on."""
    pairs, folder, model = recipe.pairs, run / "pairs", run / "model"
    train_set = PairSet(read_shards(folder, model, pairs.characters, pairs.frames, False, say))
    check_set = PairSet(read_shards(folder, model, pairs.validation_characters, pairs.frames, True, say))
    say(f"{len(train_set.pairs)} pairs of frame and key to train on, {len(check_set.pairs)} to validate on")
    return train_set, check_set


SOURCES: dict[Data, Callable[[Recipe, Path, Callable[[str], None]], tuple[Any, Any]]] = {
    "characters": characters,
    "pairs": region_pairs,
}
