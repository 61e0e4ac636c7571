"""What a run begins with: the networks and their weights, and the license that comes with them."""

from collections.abc import Callable
from pathlib import Path

import torch

from colorcli.errors import PresetError, WeightsError
from colorcli.loading import load_pipeline
from colorcli.model.build import Components, build_components
from colorcli.model.licenses import spdx_id
from colorcli.model.matcher import RegionMatcher
from colorcli.model.weights import UNKNOWN_LICENSE, read_list, weights_folder
from colorcli.train.drawings import PARTS, TAGS
from colorcli.train.objectives.distill import appoint_teacher
from colorcli.train.objectives.lora import lay_in
from colorcli.train.recipe import GO_ON, Recipe, StageSection
from colorcli.train.run.grow import grow
from colorcli.variants import MINI, VARIANTS


def begin(recipe: Recipe, say: Callable[[str], None]) -> Components:
    """Build the networks of mini, or load the model that a recipe begins with; in fp32 and in the computer's memory.

    Raises WeightsError if weights are missing or do not fit.
    """
    license_of(recipe)
    if recipe.model == "mini" and recipe.stages[0].name not in GO_ON:
        torch.manual_seed(recipe.seed)
        components = build_components(MINI, len(PARTS), len(TAGS))
    else:
        folder = weights_folder(recipe.model)   # what is not trained is copied from there, so it is no single file
        say(f"loading {recipe.model}")
        components = Components.of(load_pipeline(str(folder), "cpu", precision="fp32", memory="full"))
    if recipe.start_from:
        give_weights(components, recipe.start_from)
    return components


def base_of(recipe: Recipe) -> str:
    """Name the model whose weights a run of a trained model begins with: a name or a folder."""
    return str(recipe.start_from or recipe.model)


def give_weights(components: Components, folder: Path) -> None:
    """Give networks the weights that a model folder has for them; those that it lacks stay as they are.

    Raises WeightsError if it is no model, has none of the networks, or has one of another size.
    """
    given = load_pipeline(str(folder.resolve()), "cpu", precision="fp32", memory="full").components
    fitting = [(name, module) for name, module in components.modules() if given.get(name) is not None]
    if not fitting:
        raise WeightsError(f"{folder} has none of the networks that are trained", hint="give the folder of a model")
    for name, module in fitting:
        try:
            module.load_state_dict(given[name].state_dict())
        except RuntimeError as failure:
            first = str(failure).strip().splitlines()[-1].strip()
            raise WeightsError(f"{name} of {folder} does not fit: {first}",
                               hint="start from a model of the same sizes") from failure


def ready_for(components: Components, options: StageSection, seed: int) -> None:
    """Add the networks that a stage trains and the model has not yet.

    Raises MissingExtraError without peft, PresetError if the model cannot take them.
    """
    torch.manual_seed(seed)
    grow(components, options.name)
    if options.name == "lora":
        lay_in(components, options.lora, seed)
    if options.name == "distill":
        appoint_teacher(components)
    if options.name == "matcher" and components.matcher is None:
        components.matcher = RegionMatcher(len(PARTS), MINI.channels[0])


def license_of(recipe: Recipe) -> str:
    """Give the SPDX id of what a recipe makes: that of the weights it begins with, or what it says if nobody knows.

    Raises PresetError if the recipe says another one than the weights have, WeightsError if they are not there.
    """
    begun = {name: read_list(weights_folder(name)).license for name in _begun_from(recipe)}
    known = {name: license for name, license in begun.items() if license != UNKNOWN_LICENSE}
    wanted = spdx_id(recipe.license) if recipe.license else None
    for name, license in known.items():
        if (wanted or license) != license or len(set(known.values())) > 1:
            others = wanted or ", ".join(sorted(set(known.values()) - {license}))
            raise PresetError(f"the weights of {name} are under {license}, and the recipe makes {others} of them",
                              hint="what is trained from weights stays under their license: take license: out of the "
                                   "recipe, or begin with other weights")
    if known:
        return next(iter(known.values()))
    return wanted or (UNKNOWN_LICENSE if begun else VARIANTS["mini"].license)


def _begun_from(recipe: Recipe) -> list[str]:
    from_model = [] if recipe.model == "mini" else [recipe.model]
    return [*from_model, *([str(recipe.start_from)] if recipe.start_from else [])]
