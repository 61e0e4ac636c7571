"""What each stage of the table trains, and what it leaves alone."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from colorcli.errors import PresetError
from colorcli.model.build import Components
from colorcli.model.lora import BackgroundAdapter
from colorcli.train.recipe import StageName, StageSection
from colorcli.train.run.grow import grow
from colorcli.train.sections import AblationSection, GramSection
from colorcli.train.stages import STAGES, trained_modules
from colorcli.train.turn import Turn
from colorcli.variants import VARIANTS
from tests import tiny_mini, tiny_v2, tiny_xl
from tests.train import tiny_data

MODELS: dict[str, Callable[[], Components]] = {
    "mini": lambda: tiny_mini.components(matcher=True),
    "xl": lambda: Components(**tiny_xl.components()),
    "xlv2": lambda: Components(**tiny_xl.components(adapter=True)),
    "v2": lambda: Components(**tiny_v2.components()),
}
DATA: dict[str, Callable[[], Any]] = {
    "characters": tiny_data.characters, "pairs": tiny_data.pairs, "pictures": tiny_data.Pictures,
}
# Those of files that have tests of their own for this.
ELSEWHERE = {"lora", "distill"}
CASES = [(name, model) for name, stage in STAGES.items() if name not in ELSEWHERE for model in stage.models]


def options(stage: str, **more: Any) -> StageSection:
    return StageSection(name=stage, steps=4, batch=4, rate=1e-3, **more)


def parameters(components: Components) -> dict[str, nn.Parameter]:
    """All parameters of a model by their paths."""
    return {f"{name}.{inner}": p for name, module in components.modules() for inner, p in module.named_parameters()}


@dataclass
class Trained:
    """What happened to a model in some steps."""

    before: dict[str, Tensor]
    after: dict[str, Tensor]
    learning: set[str]                                               # paths of what the table says is trained
    largest: list[dict[str, float]] = field(default_factory=list)    # gradient of each of them, step by step
    told: list[dict[str, float]] = field(default_factory=list)

    @property
    def moved(self) -> set[str]:
        return {name for name, value in self.before.items() if not torch.equal(value, self.after[name])}


def train(components: Components, stage: StageSection, steps: int = 4) -> Trained:
    """Take some steps as the loop does. Without weight decay, so that only what has a gradient moves."""
    kind, data = STAGES[stage.name], DATA[STAGES[stage.name].data]()
    components.freeze()
    modules = trained_modules(components, stage.name)
    for module in modules.values():
        module.requires_grad_(True).train()
    known = parameters(components)
    learning = {f"{path}.{inner}" for path, module in modules.items() for inner, _ in module.named_parameters()}
    optimizer = torch.optim.AdamW([known[name] for name in sorted(learning)], lr=stage.rate, weight_decay=0.0)
    found = Trained({name: p.detach().clone() for name, p in known.items()}, {}, learning)
    for step in range(steps):
        turn = Turn(1, stage.name, step)
        losses = kind.losses(components, kind.make_batch(data, turn, stage.batch, stage), turn, stage)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        optimizer.step()
        found.told.append({name: float(value.detach()) for name, value in losses.items()})
        found.largest.append({
            name: 0.0 if known[name].grad is None else float(known[name].grad.abs().max()) for name in learning
        })
    found.after = {name: p.detach().clone() for name, p in known.items()}
    return found


def out_of_reach(components: Components, stage: str) -> set[str]:
    """Name what is trained but has no part in any loss: what comes behind the last tokens that the bank takes."""
    if stage != "xl-refine":
        return set()
    assert components.reference_net is not None
    last = components.reference_net.up_blocks[-1].attentions[-1]
    behind = [last.transformer_blocks[-1].attn1, last.transformer_blocks[-1].norm3, last.transformer_blocks[-1].ff,
              last.proj_out]
    members = {id(p) for module in behind for p in module.parameters()}
    return {f"reference_net.{name}" for name, p in components.reference_net.named_parameters() if id(p) in members}


def begun(model: str, stage: str) -> Components:
    """Build a model that a stage can train."""
    components = MODELS[model]()
    torch.manual_seed(0)
    grow(components, stage)
    if stage == "xl-refine":   # what is refined has learned: its last layer, where gradients come in, is not zero
        nn.init.normal_(components.unet.conv_out.weight, std=0.1)
    return components


@pytest.mark.parametrize(("stage", "model"), CASES)
def test_a_stage_moves_what_the_table_says_and_nothing_else(stage, model):
    components = begun(model, stage)
    trained = train(components, options(stage))
    reached = trained.learning - out_of_reach(components, stage)
    assert not trained.moved ^ reached, sorted(trained.moved ^ reached)
    assert all(torch.isfinite(value).all() for value in trained.after.values())
    assert {name for name in trained.learning if any(step[name] for step in trained.largest)} == reached
    assert all(value > 0 for value in (told["loss"] for told in trained.told))


def test_the_table_is_the_published_one():
    """Spec: training, 2.3, 5.4 and 6.1."""
    published = {
        "xl-base": {"unet", "sketch_encoder", "projection"},
        "xl-refine": {"reference_net", "adapter"},
        "v2-background": {"background_encoder", "adapter", "unet.warp_modules"},
        "v2-style": {"style_encoder", "unet.style_modules"},
        "switch": {"adapter"},
    }
    assert {name: set(STAGES[name].trains) for name in published} == published
    for stage in STAGES.values():
        assert set(stage.models) <= VARIANTS.keys(), stage.name


def test_recipes_know_every_stage():
    assert STAGES.keys() <= set(get_args(StageName))


@pytest.mark.parametrize("model", ["xl", "mini"])
def test_new_adapters_learn_their_upper_halves_first(model):
    components = begun(model, "xl-refine")
    assert isinstance(components.adapter, BackgroundAdapter)
    assert len(components.adapter.blocks) == 17   # one for each transformer block
    trained = train(components, options("xl-refine"), steps=2)
    halves = {kind: {name for name in trained.learning if name.startswith("adapter.") and name.endswith(kind)}
              for kind in ("up", "down")}
    assert len(halves["up"]) == len(halves["down"]) == 17 * 3
    first, second = trained.largest
    assert all(first[name] > 0 for name in halves["up"]) and not any(first[name] for name in halves["down"])
    assert all(second[name] > 0 for name in halves["down"])


def test_new_side_encoders_change_nothing_until_they_have_learned():
    parts = tiny_v2.components() | {"background_encoder": None, "style_encoder": None, "adapter": None}
    components = Components(**parts)
    torch.manual_seed(0)
    for stage in ("v2-background", "v2-style"):
        grow(components, stage)
    trained = train(components, options("v2-background"), steps=1)
    heads = {name for name in trained.learning if name.startswith("background_encoder.heads.")}
    bodies = {name for name in trained.learning if name.startswith("background_encoder.")} - heads
    assert heads and bodies
    # Zero hints: the heads learn at once, what stands before them only when they have.
    assert any(trained.largest[0][name] for name in heads)
    assert not any(trained.largest[0][name] for name in bodies)


def test_a_stage_that_the_model_has_nothing_for_says_so():
    with pytest.raises(PresetError, match="v2-style trains style_encoder"):
        trained_modules(MODELS["xl"](), "v2-style")
    with pytest.raises(PresetError, match="takes nothing from side encoders"):
        grow(MODELS["xl"](), "v2-style")


@pytest.mark.parametrize(("stage", "model"), [("xl-base", "xl"), ("xl-base", "mini"), ("colorizer", "mini")])
def test_the_gram_loss_is_added_from_its_start_on(stage, model):
    halfway = options(stage, gram=GramSection(weight=2.0, start=0.5))
    trained = train(MODELS[model](), halfway, steps=3)
    assert ["gram" in told for told in trained.told] == [False, False, True]
    assert trained.told[2]["gram"] > 0
    plain = train(MODELS[model](), options(stage), steps=3)
    if stage == "xl-base":   # the stage cuts masks higher with the Gram loss, which changes what is drawn
        return
    assert plain.told[:2] == trained.told[:2]
    added = trained.told[2]["loss"] - plain.told[2]["loss"]
    assert added == pytest.approx(2 * trained.told[2]["gram"], rel=1e-3)


def test_the_gram_loss_wants_a_neighbor():
    alone = StageSection(name="xl-base", steps=1, batch=1, rate=1e-3, gram=GramSection(weight=1.0))
    with pytest.raises(PresetError, match="batch"):
        train(MODELS["xl"](), alone, steps=1)


def test_detaching_the_reference_leaves_the_projection_out_of_the_gram_loss():
    def projection_gradient(detached: bool) -> float:
        gram = GramSection(weight=1e6, detach_reference=detached)   # so large that the diffusion loss does not count
        trained = train(MODELS["xl"](), options("xl-base", gram=gram), steps=1)
        return max(value for name, value in trained.largest[0].items() if name.startswith("projection."))

    assert projection_gradient(True) < 1e-2 * projection_gradient(False)


def test_without_the_tagger_a_reference_is_read_by_clip_alone():
    components = MODELS["mini"]()
    stage = options("colorizer", ablation=AblationSection(tagger=False))
    trained = train(components, stage, steps=1)
    weight = components.projection.proj[0].weight
    assert not weight.grad[:, -components.projection.config["tagger_dim"]:].any()
    assert weight.grad[:, : components.projection.config["input_dim"]].any()
    assert trained.told[0]["loss"] > 0


@pytest.mark.parametrize(("choice", "same"), [("same", 1.0), ("other", 0.0)])
def test_references_can_be_the_drawing_itself_or_always_another_pose(choice, same):
    data = tiny_data.characters()
    picked = []
    data_pairs = data.pairs

    def watched(rng, batch, same_pose=0.15):
        picked.append(data_pairs(rng, batch, same_pose))
        return picked[-1]

    data.pairs = watched
    stage = options("colorizer", ablation=AblationSection(reference=choice))
    STAGES["colorizer"].make_batch(data, Turn(1, "colorizer", 0), 8, stage)
    (found,) = picked
    itself = [a is b for a, b in zip(found.targets, found.references, strict=True)]
    assert sum(itself) / len(itself) == same


def test_the_same_turn_gives_the_same_losses():
    components, stage = MODELS["xlv2"](), options("xl-refine")
    kind, turn = STAGES["xl-refine"], Turn(3, "xl-refine", 7)
    batch = kind.make_batch(tiny_data.Pictures(), turn, 3, stage)
    with torch.no_grad():
        first, second = (kind.losses(components, batch, turn, stage)["loss"] for _ in range(2))
        other = kind.losses(components, batch, Turn(3, "xl-refine", 8), stage)["loss"]
    assert first == second != other
