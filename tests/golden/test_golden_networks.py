"""The single networks give the golden numbers."""

import pytest
import torch
from safetensors.torch import load_file

from colorcli.model.preprocess import tagger_pixels
from colorcli.model.reference import TaggerTower
from colorcli.model.scalars import canvas_vector, crop_vector, embed_scalar
from tests.golden import networks
from tests.golden.fixture import folder, load
from tests.model.conversion import tagger_state


@pytest.mark.parametrize("name", ["xl_cluster_concat", "xl_masked_attention"])
def test_golden_recipes_build_the_weights_that_also_lie_there(name):
    built = load(name).weights
    stored = load_file(folder() / name / "weights.safetensors")
    assert built.keys() == stored.keys()
    assert all(torch.equal(built[key], value) for key, value in stored.items())


def test_golden_sketch_encoder_gives_the_maps_finest_first():
    fixture = load("xl_sketch_encoder")
    encoder = networks.sketch_encoder(fixture, fixture.config["constructor"])
    maps = encoder(fixture.inputs["sketch"])
    assert len(maps) == len(fixture.outputs)
    for i, control in enumerate(maps):
        fixture.check(f"control.{i}", control)


def test_golden_projection_gives_the_context_of_both_encoders():
    fixture = load("xl_cluster_concat")
    projection = networks.projection(fixture, fixture.config["constructor"])
    context = projection(fixture.inputs["clip_tokens"], fixture.inputs["tagger_tokens"])
    first = projection(fixture.inputs["clip_tokens"][:1], fixture.inputs["tagger_tokens"][:1])
    for name in fixture.outputs:
        rows = first if "batch1" in name else context
        if name.endswith("flag_on") and rows.shape[0] > 1:
            rows = torch.cat(rows.chunk(2), dim=1)   # the background, second half of the batch, behind the reference
        fixture.check(name, rows)


def test_golden_scalars_are_embedded_and_packed():
    fixture = load("scalar_embedder")
    given = fixture.inputs
    dim = fixture.config["embed_dim"]
    fixture.check("raw", embed_scalar(given["timesteps"], dim))
    fixture.check("raw_odd", embed_scalar(given["timesteps"], fixture.config["small_odd_dim"]))
    fixture.check("y_base", canvas_vector(given["height"], given["width"], given["score"], dim))
    crop = [given[f"crop_{side}"] for side in ("top", "left", "h", "w")]
    fixture.check("y_adapter", crop_vector(*crop, dim))


def test_golden_denoiser_gives_the_prediction_and_every_map_on_the_way():
    fixture = load("xl_unet_forward")
    given = fixture.inputs
    seen: dict[str, torch.Tensor] = {}
    maps = fixture.input_family("control")
    unet = networks.unet(fixture)
    out = unet(given["x"], given["timesteps"], given["y"], given["context"], maps, observe=seen.__setitem__)
    for name in fixture.outputs:
        number = name.removesuffix("_before_control").rsplit("_", 1)[-1]
        if name == "out":
            fixture.check(name, out)
        elif name == "after_middle_block":
            fixture.check(name, seen["middle"])
        elif name.startswith("input_block_"):
            fixture.check(name, seen[f"input.{number}"])
        elif name.startswith("after_output_block_"):
            fixture.check(name, seen[f"output.{number}"])
        else:
            pytest.fail(f"no check for {name}")


def test_golden_tagger_gives_one_token_for_each_cell():
    fixture = load("wd_tagger_tokens")
    numbers = fixture.config
    names = ("embed_dim", "depths", "num_heads", "window_size", "patch_size", "mlp_ratio")
    sizes = {name: numbers[name] for name in names}
    tower = networks.filled(TaggerTower(image_size=numbers["img_size"], **sizes), tagger_state(fixture.weights))
    pixels = tagger_pixels(fixture.inputs["image"], numbers["img_size"])
    fixture.check("preprocessed", pixels)
    tokens = tower(pixels)
    fixture.check("tokens", tokens)
    fixture.check("logits", tokens.mean(1) @ fixture.weights["head.fc.weight"].mT + fixture.weights["head.fc.bias"])
