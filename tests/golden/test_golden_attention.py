"""Split attention, banks, adapters and reference-only attention give the golden numbers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.func import functional_call

from colorcli.model.attention import AttentionPlan, Injection, cross_attention, layer_mask, region_at
from colorcli.model.conditions import Rows
from colorcli.model.unet import (
    PLAIN,
    ColorUNet,
    build_unet,
    group,
    places,
    project_bank,
    project_context,
    published_strengths,
    transformer_blocks,
)
from colorcli.sampling import PUBLISHED_SCHEDULE, ReferenceOnly, levels_of
from colorcli.sampling.injection import seen_of_key
from tests.golden import networks
from tests.golden.fixture import Fixture, load
from tests.model.conversion import UNET
from tests.model.merging import merged_weights, scaled


def call(unet: ColorUNet, fixture: Fixture, plan: AttentionPlan = PLAIN, context: Any = None) -> Tensor:
    """Run the network on a fixture's inputs."""
    given = fixture.inputs
    seen = given["context"] if context is None else context
    return unet(given["x"], given["timesteps"], given["y"], seen, fixture.input_family("control"), plan)


def test_golden_attention_layer_splits_by_the_mask():
    fixture = load("xl_masked_attention")
    numbers, given = fixture.config["constructor"], fixture.inputs
    layer = Attention(
        query_dim=numbers["query_dim"], cross_attention_dim=numbers["context_dim"], heads=numbers["heads"],
        dim_head=numbers["dim_head"],
    )
    networks.filled(layer, fixture.weights_under("attn2."))
    hidden, context = given["hidden"], given["context"]
    height, width = (int(side * fixture.config["latent_to_layer_scale_factor"]) for side in given["mask"].shape[-2:])
    fixture.check("mask_at_layer", layer_mask(given["mask"], height, width))
    fixture.check("out.no_mask", cross_attention(layer, hidden, context, 1.0, PLAIN))
    for i, case in enumerate(fixture.config["cases"]):
        region = networks.region(case, given["mask"])
        out = cross_attention(layer, hidden, context, case["scale"], PLAIN, region_at(region, height, width))
        fixture.check(f"out.case{i}", out)


@pytest.mark.parametrize("cached", [False, True], ids=["projected-each-call", "projected-once"])
def test_golden_denoiser_splits_every_cross_attention(cached):
    fixture = load("xl_unet_split_attention")
    unet, given = networks.unet(fixture), fixture.inputs
    context = project_context(unet, given["context"]) if cached else given["context"]
    for i, case in enumerate(fixture.config["cases"]):
        region = networks.region(case, given["mask"]) if case.get("use_mask", True) else None
        plan = AttentionPlan(region, case.get("reference_scale", 1.0))
        fixture.check(f"out.case{i}", call(unet, fixture, plan, context))


def written(fixture: Fixture, bank: str) -> list[Tensor]:
    """Write the bank that a case names."""
    if bank == "none":
        return []
    rows = slice(0, 1) if bank == "one" else slice(None)
    return networks.reference_net(fixture)(fixture.inputs["reference.x"][rows], fixture.inputs["reference.y"][rows])


@pytest.mark.parametrize("cached", [False, True], ids=["projected-each-call", "projected-once"])
def test_golden_decoder_reads_the_bank(cached):
    fixture = load("xl_reference_injection")
    unet, given = networks.unet(fixture), fixture.inputs
    for i, case in enumerate(fixture.config["cases"]):
        bank = written(fixture, case["bank"])
        for name in fixture.outputs:
            if name.startswith(f"bank.case{i}.block"):
                fixture.check(name, bank[int(name.removeprefix(f"bank.case{i}.block"))])
        region = networks.region(case, given["mask"]) if case["use_mask"] else None
        read = project_bank(unet, bank) if cached and bank else bank
        plan = AttentionPlan(region, case.get("reference_scale", 1.0), read)
        fixture.check(f"out.case{i}", call(unet, fixture, plan))


def test_golden_adapter_is_switched_scaled_merged_and_gone_again():
    fixture = load("xl_lora")
    unet, given, adapters = networks.unet(fixture), fixture.inputs, networks.adapters(fixture)
    on = AttentionPlan(adapters=adapters)
    fixture.check("out.off", call(unet, fixture))
    fixture.check("out.on", call(unet, fixture, on))
    fixture.check("out.on_scale_half", call(unet, fixture, AttentionPlan(adapters=scaled(adapters, 0.5))))
    for i, case in enumerate(fixture.config["masked_cases"]):
        plan = AttentionPlan(networks.region(case, given["mask"], "soft"), case.get("reference_scale", 1.0))
        fixture.check(f"out.off_masked.case{i}", call(unet, fixture, plan))
        fixture.check(f"out.on_masked.case{i}", call(unet, fixture, replace(plan, adapters=adapters)))
    merged = merged_weights(unet, adapters)
    arguments = (given["x"], given["timesteps"], given["y"], given["context"], fixture.input_family("control"))
    fixture.check("out.merged", functional_call(unet, merged, arguments))
    fixture.check("out.restored_off", call(unet, fixture))
    for name in fixture.outputs:
        if name.startswith("out.merged_scale_"):
            scale = float(name.removeprefix("out.merged_scale_").replace("minus_", "-"))
            fixture.check(name, functional_call(unet, merged_weights(unet, scaled(adapters, scale)), arguments))
        if name.startswith("merged_weight."):
            fixture.check(name, merged[ours(unet, fixture, name.removeprefix("merged_weight."))])


def ours(unet: ColorUNet, fixture: Fixture, published: str) -> str:
    """Find the name of a published weight in our network, by its value."""
    value = fixture.weights[published]
    (name,) = [name for name, weight in unet.named_parameters() if weight.shape == value.shape and weight.equal(value)]
    assert published.startswith(UNET)
    return name


def test_golden_adapter_and_bank_together():
    fixture = load("xl_reference_injection_lora")
    unet, given, adapters = networks.unet(fixture), fixture.inputs, networks.adapters(fixture)
    bank = written(fixture, "one")
    for i, case in enumerate(fixture.config["cases"]):
        region = networks.region(case, given["mask"], "soft") if case["use_mask"] else None
        used = adapters if case["lora"] else ()
        plan = AttentionPlan(region, case.get("reference_scale", 1.0), bank, adapters=used)
        fixture.check(f"out.case{i}", call(unet, fixture, plan))


def test_golden_reference_only_attention():
    fixture = load("xl_attention_injection")
    unet, given = networks.unet(fixture), fixture.inputs
    fixture.check("out.plain", call(unet, fixture))
    levels, time = levels_of(PUBLISHED_SCHEDULE), float(given["timesteps"][0])
    controls = fixture.input_family("reference_control")
    for i, case in enumerate(fixture.config["cases"]):
        region = networks.region(case, given["mask"]) if "mask_threshold" in case else None
        plan = AttentionPlan(region)
        maps = [case["control"] * control for control in controls]
        key = ReferenceOnly(given["reference_latent"], given["reference_noise"], maps, case["style"], case["start"])
        if key.is_read(time, fixture.config["num_training_steps"]):
            rows = Rows(given["context"], (), given["y"], plan)
            stored = seen_of_key(unet, rows, len(given["x"]), time, levels, key)
            plan = replace(plan, injection=Injection(stored, key.fidelity, case["uncond_rows"]))
        fixture.check(f"out.case{i}", call(unet, fixture, plan))


def test_golden_tables_of_the_transformer_blocks():
    fixture = load("attention_tables")
    numbers = fixture.config
    with torch.device("meta"):
        unet = build_unet(**networks.sizes(numbers["unet"]), context_dim=numbers["unet"]["context_dim"])
    where = places(unet)
    fixture.check("scale_factor", torch.tensor([1 / place.stride for place in where]))
    fixture.check("channels", torch.tensor([place.width for place in where]))
    names = {"bottom": "middle"}
    for name in fixture.outputs:
        kind, _, rest = name.partition(".")
        if kind == "group":
            fixture.check(name, torch.tensor(group(unet, names.get(rest, rest))))
        elif kind == "reference_scale":
            model, _, setting = rest.partition(".setting")
            scales = numbers["strength_settings"][int(setting)]["scales"]
            fixture.check(name, torch.tensor(published_strengths(unet, scales, adapter=model == "adapter_model")))
    names = {id(module): name for name, module in unet.named_modules()}
    order = [names[id(block)] for block in transformer_blocks(unet)]
    published = numbers["transformer_blocks_in_order"]
    assert order == [our_block(name, numbers["unet"]["num_res_blocks"] + 1) for name in published]
    assert all(published[int(number) - 1] == name for number, name in numbers["gram_ids_are_one_based"].items())


def our_block(published: str, blocks_a_level: int) -> str:
    """Translate the path of a transformer block: a level's blocks are counted on through all levels there, not here."""
    kind, number, *_, inner = published.split(".")
    if kind == "middle_block":
        return f"mid_block.attentions.0.transformer_blocks.{inner}"
    level, i = divmod(int(number) - (kind == "input_blocks"), blocks_a_level)
    part = "down_blocks" if kind == "input_blocks" else "up_blocks"
    return f"{part}.{level}.attentions.{i}.transformer_blocks.{inner}"
