"""The stages of training, and what each one trains: every other component stays as it is, bit for bit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from colorcli.errors import PresetError
from colorcli.model.build import Components
from colorcli.train.data.batch import Losses
from colorcli.train.objectives import mini, published
from colorcli.train.objectives.distill import distill_losses
from colorcli.train.objectives.lora import lora_losses, make_sheet_batch
from colorcli.train.recipe import StageSection
from colorcli.train.turn import Turn

Data = Literal["characters", "pairs", "pictures", "sheets"]


@dataclass(frozen=True)
class Stage:
    """One stage of training."""

    name: str
    trains: tuple[str, ...]   # components, or parts of them by their path; all others are frozen
    data: Data                # what it learns from: a CharacterSet, a PairSet, or anything that gives PictureBatches
    make_batch: Callable[[Any, Turn, int, StageSection], Any]             # data, turn, size, options: no networks
    losses: Callable[[Components, Any, Turn, StageSection], Losses]       # of a batch on the networks' device
    models: tuple[str, ...]   # variants it can train


STAGES: dict[str, Stage] = {stage.name: stage for stage in (
    Stage("autoencoder", ("vae",), "characters", mini.make_color_batch, mini.autoencoder_losses, ("mini",)),
    Stage("tagger", ("tagger", "token_head"), "characters", mini.make_tagger_batch, mini.tagger_losses, ("mini",)),
    Stage("sketch", ("sketch_encoder", "map_head"), "characters", mini.make_sketch_batch, mini.sketch_losses,
          ("mini",)),
    Stage("colorizer", ("unet", "feature_head", "sketch_encoder", "map_head", "image_encoder", "projection"),
          "characters", mini.make_color_batch, mini.colorizer_losses, ("mini",)),
    Stage("matcher", ("matcher",), "pairs", mini.make_pair_batch, mini.matcher_losses, ("mini",)),
    Stage("xl-base", ("unet", "sketch_encoder", "projection"), "pictures",
          published.make_picture_batch, published.xl_base_losses, ("xl", "xlv2", "mini")),
    Stage("xl-refine", ("reference_net", "adapter"), "pictures",
          published.make_picture_batch, published.xl_refine_losses, ("xlv2", "xl", "mini")),
    Stage("v2-background", ("background_encoder", "adapter", "unet.warp_modules"), "pictures",
          published.make_picture_batch, published.v2_background_losses, ("v2",)),
    Stage("v2-style", ("style_encoder", "unet.style_modules"), "pictures",
          published.make_picture_batch, published.v2_style_losses, ("v2",)),
    Stage("switch", ("adapter",), "pictures", published.make_picture_batch, published.switch_losses, ("v2",)),
    Stage("distill", ("unet",), "characters", mini.make_color_batch, distill_losses, ("mini",)),
    Stage("lora", ("beside.lora",), "sheets", make_sheet_batch, lora_losses, ("mini", "xl", "xlv2", "v2")),
)}


def trained_modules(components: Components, stage: str) -> dict[str, nn.Module]:
    """Give the modules that learn in a stage, by their path. Raises PresetError if the model has not all of them."""
    found = {}
    for path in STAGES[stage].trains:
        name, _, inner = path.partition(".")
        component = getattr(components, name)
        if component is None:
            raise PresetError(
                f"the stage {stage} trains {name}, which this model has not",
                hint=f"it goes with {' or '.join(STAGES[stage].models)}",
            )
        found[path] = component.get_submodule(inner)
    return found
