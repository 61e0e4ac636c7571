"""What the stages of a run learn from: drawn, read or opened when the first stage asks for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from colorcli.loading import load_pipeline
from colorcli.model.weights import find_weights, weights_digest
from colorcli.train.dataset import CharacterSet, draw_shards
from colorcli.train.pairs import PairSet, read_shards
from colorcli.train.recipe import Recipe
from colorcli.train.sheets import SheetSet, encoded_sheets, find_sheets
from colorcli.train.stages import Data
from colorcli.train.start import base_of


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


def show_sheets(recipe: Recipe, run: Path, say: Callable[[str], None]) -> tuple[SheetSet, None]:
    """Read a show's pictures with the networks that the run begins with. There are none to validate on."""
    assert recipe.sheets is not None
    base, tokens = base_of(recipe), "projection" in recipe.stages[0].lora.layers
    file = encoded_sheets(run / "sheets", recipe.sheets, weights_digest(find_weights(base)),
                          lambda: load_pipeline(base, precision="fp32"), say, tokens=tokens)
    found = SheetSet(file)
    say(f"{len(found.lessons)} lessons, each a picture and another one of its character")
    return found, None


SOURCES: dict[Data, Callable[[Recipe, Path, Callable[[str], None]], tuple[Any, Any]]] = {
    "characters": characters,
    "pairs": region_pairs,
    "sheets": show_sheets,
}


BYTES_OF_A_DRAWING = 770_000   # in a shard: measured


def data_in_words(recipe: Recipe, run: Path, kind: Data) -> list[str]:
    """Say what a kind of data is, how much of it there is, and what has to be made of it first."""
    if kind == "characters":
        drawings = recipe.drawings
        made = len(list((run / "drawings").glob("*.safetensors")))
        there = "" if made else ", to be drawn first"
        return [f"{drawings.characters} generated characters in {drawings.poses} drawings each, and "
                f"{drawings.validation_characters} to validate on{there}"]
    if kind == "pairs":
        pairs = recipe.pairs
        return [f"regions of {pairs.characters} generated characters in {pairs.frames} frames each, and of "
                f"{pairs.validation_characters} to validate on, read with the networks of the run"]
    if kind == "sheets" and recipe.sheets is not None:
        sheets = find_sheets(recipe.sheets.folder)
        return [f"{sum(map(len, sheets.values()))} pictures of {len(sheets)} characters in {recipe.sheets.folder}"]
    return []


def drawing_bytes(recipe: Recipe, run: Path, kinds: list[Data]) -> int:
    """Estimate the bytes of drawings that are still to be made."""
    if "characters" not in kinds:
        return 0
    drawings = recipe.drawings
    count = (drawings.characters + drawings.validation_characters) * drawings.poses
    there = sum(path.stat().st_size for path in (run / "drawings").glob("*.safetensors"))
    return max(0, count * BYTES_OF_A_DRAWING - there)
