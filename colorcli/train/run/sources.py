"""What the stages of a run learn from: drawn, read or opened when the first stage asks for it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from colorcli.errors import DataError
from colorcli.loading import load_pipeline
from colorcli.model.weights import find_weights, weights_digest
from colorcli.train.data.archives import PictureStore
from colorcli.train.data.batch import PictureSource
from colorcli.train.data.characters import CharacterSet, draw_shards
from colorcli.train.data.index import open_index, why
from colorcli.train.data.pairs import PairSet, read_shards
from colorcli.train.data.pictures import DrawnPictures, PictureSet, PictureSettings, settings_for
from colorcli.train.data.sheets import SheetSet, encoded_sheets, find_sheets
from colorcli.train.recipe import Recipe
from colorcli.train.run.start import base_of
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


def require_data(recipe: Recipe) -> None:
    """Raise DataError if a folder that the recipe names is not there."""
    named = {"pictures.folder": recipe.pictures.folder if recipe.pictures else None,
             "pictures.validation_folder": recipe.pictures.validation_folder if recipe.pictures else None,
             "sheets.folder": recipe.sheets.folder if recipe.sheets else None}
    for key, folder in named.items():
        if folder is not None and not folder.is_dir():
            raise DataError(f"{key}: there is no folder {folder}", hint=f"--set {key}=DIR, or write it into the recipe")


def characters(recipe: Recipe, run: Path, say: Callable[[str], None]) -> tuple[CharacterSet, CharacterSet]:
    """Draw characters: those to train on, and those of families that are never trained on."""
    drawings, folder = recipe.drawings, run / "drawings"
    looks = drawings.side, drawings.background
    shards = draw_shards(folder, drawings.characters, drawings.poses, False, say, *looks)
    checks = draw_shards(folder, drawings.validation_characters, drawings.poses, True, say, *looks)
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
    base, tokens = base_of(recipe), "projection" in (recipe.stages[0].lora.layers or ())
    file = encoded_sheets(run / "sheets", recipe.sheets, weights_digest(find_weights(base)),
                          lambda: load_pipeline(base, precision="fp32"), say, tokens=tokens)
    found = SheetSet(file)
    say(f"{len(found.lessons)} lessons, each a picture and another one of its character")
    return found, None


def pictures(recipe: Recipe, run: Path, say: Callable[[str], None]) -> tuple[PictureSource, PictureSource | None]:
    """Open a studio's pictures, or show generated drawings as pictures where a recipe names none. Raises DataError."""
    section, settings = recipe.pictures, picture_settings(recipe)
    if section is None:
        train_set, check_set = characters(recipe, run, say)
        shares = recipe.drawings.same_pose
        return DrawnPictures(train_set, settings, shares), DrawnPictures(check_set, settings, shares)
    found = PictureSet(section.folder, settings)
    for stage in recipe.stages:
        if stage.name in LIKE:
            found.plan(stage.batch)   # too few pictures for a batch are told before anything is trained
    # In validation a picture is colored from another one, as a user's frame is.
    shifted = replace(settings, reference="shifted", repeated=True, segment=1)
    checks = PictureSet(section.validation_folder, shifted) if section.validation_folder else None
    say(f"{len(found)} pictures to train on, {len(checks) if checks else 'none'} to validate on")
    counts = found.index.counts
    if counts.kept < counts.total:
        say(f"{counts.total - counts.kept} pictures of {section.folder} are left out: {why(counts)}")
    return found, checks


def picture_settings(recipe: Recipe) -> PictureSettings:
    """Say how pictures become batches: as in the published training of the first stage that learns from them."""
    like = next((LIKE[stage.name] for stage in recipe.stages if stage.name in LIKE), "xl")
    section = recipe.pictures
    if section is None:
        return settings_for(like, recipe.drawings.side)
    settings = settings_for(section.like or like, section.side, reference_side=section.reference_side,
                            reference=section.reference, min_score=section.min_score, min_side=section.min_side)
    flip = settings.flip if section.flip is None else section.flip
    return replace(settings, flat_background=section.flat_background, readers=section.readers, flip=flip,
                   segment=section.segment)


# Whose way of choosing and cropping pictures a stage follows.
LIKE = {"xl-base": "xl", "xl-refine": "xl", "v2-background": "v2", "v2-style": "v2", "switch": "v1-768"}


SOURCES: dict[Data, Callable[[Recipe, Path, Callable[[str], None]], tuple[Any, Any]]] = {
    "characters": characters,
    "pairs": region_pairs,
    "sheets": show_sheets,
    "pictures": pictures,
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
    if kind == "pictures" and recipe.pictures is not None:
        folder, which = recipe.pictures.folder, picture_settings(recipe).which
        counts = open_index(PictureStore(folder), which).counts
        return [f"{counts.kept} of {counts.total} pictures of {folder} (colorcli dataset check tells more)"]
    if kind == "pictures":
        return data_in_words(recipe, run, "characters")
    return []


def drawing_bytes(recipe: Recipe, run: Path, kinds: list[Data]) -> int:
    """Estimate the bytes of drawings that are still to be made."""
    if "characters" not in kinds and not ("pictures" in kinds and recipe.pictures is None):
        return 0
    drawings = recipe.drawings
    count = (drawings.characters + drawings.validation_characters) * drawings.poses
    there = sum(path.stat().st_size for path in (run / "drawings").glob("*.safetensors"))
    return max(0, count * BYTES_OF_A_DRAWING - there)
