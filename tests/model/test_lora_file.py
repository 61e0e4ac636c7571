"""LoRA files as they come from trainers: what they change, to which models they belong, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from colorcli.errors import WeightsError
from colorcli.model.lora_file import check_loras, open_lora, read_lora_file
from colorcli.model.lora_merge import Lora, changed_networks
from colorcli.model.single_file import family_of_file
from colorcli.model.weights import shipped_folder, weights_digest
from colorcli.presets import LoraSettings, Preset
from tests.model import tiny
from tests.model.lora_made import QUERIES, VALUES, halves, kohya_names, lora_file, peft_names

MINI = shipped_folder("mini")
ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"   # of the tiny network: 24 to 32 channels
IN_LDM = "input_blocks.4.1.transformer_blocks.0.attn2.to_v"                # the same, as published files name it
CONVOLUTION = "down_blocks.0.resnets.0.conv1"                              # 32 to 32 channels, 3x3


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return tiny.unet()


def delta(network: nn.Module, file: Path, layer: str, strength: float = 1.0) -> np.ndarray[Any, Any]:
    """What a file adds to the weight of a layer."""
    changed = changed_networks({"unet": network}, [Lora(read_lora_file(file), strength)])["unet"]
    name = f"{layer}.weight"
    return (changed.get_parameter(name) - network.get_parameter(name)).detach().numpy()


@pytest.mark.parametrize("name", [
    "unet.{0}.lora_A.weight unet.{0}.lora_B.weight",
    "base_model.model.{0}.lora_A.weight base_model.model.{0}.lora_B.weight",
    "unet.{0}.lora.down.weight unet.{0}.lora.up.weight",
    "lora_unet_{1}.lora_down.weight lora_unet_{1}.lora_up.weight",
    "lora_unet_{2}.lora_down.weight lora_unet_{2}.lora_up.weight",
], ids=["diffusers", "peft", "old diffusers", "kohya", "kohya, LDM blocks"])
def test_a_layer_is_found_by_the_names_of_every_trainer(tmp_path: Path, network: nn.Module, name: str) -> None:
    down, up = halves(24, 32)
    names = name.format(ATTENTION, ATTENTION.replace(".", "_"), IN_LDM.replace(".", "_")).split()
    file = lora_file(tmp_path / "a.safetensors", dict(zip(names, (down, up), strict=True)))
    np.testing.assert_allclose(delta(network, file, ATTENTION), up @ down, atol=1e-6)


def test_the_change_is_scaled_by_alpha_over_rank_and_by_the_strength(tmp_path: Path, network: nn.Module) -> None:
    down, up = halves(24, 32, rank=4)
    file = lora_file(tmp_path / "a.safetensors", kohya_names({ATTENTION: (down, up)}, alpha=2))
    np.testing.assert_allclose(delta(network, file, ATTENTION, 0.5), 0.25 * up @ down, atol=1e-6)


def test_alpha_may_stand_in_the_metadata_of_diffusers(tmp_path: Path, network: nn.Module) -> None:
    down, up = halves(24, 32, rank=4)
    path = tmp_path / "a.safetensors"
    save_file(peft_names({ATTENTION: (down, up)}), path, {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 12})})
    np.testing.assert_allclose(delta(network, path, ATTENTION), 3 * up @ down, atol=1e-6)


def test_a_convolution_is_changed_as_the_product_of_its_halves(tmp_path: Path, network: nn.Module) -> None:
    rng = np.random.default_rng(3)
    down, up = (rng.normal(0, 0.1, shape).astype(np.float32) for shape in ((2, 32, 3, 3), (32, 2, 1, 1)))
    file = lora_file(tmp_path / "a.safetensors", kohya_names({CONVOLUTION: (down, up)}))
    expected = np.einsum("or,rikl->oikl", up[:, :, 0, 0], down)
    np.testing.assert_allclose(delta(network, file, CONVOLUTION), expected, atol=1e-6)


def test_the_changes_of_several_files_add_up(tmp_path: Path, network: nn.Module) -> None:
    one, other = halves(24, 32, seed=1), halves(24, 32, seed=2)
    files = [lora_file(tmp_path / f"{i}.safetensors", peft_names({ATTENTION: both})) for i, both in
             enumerate((one, other))]
    loras = [Lora(read_lora_file(file), strength) for file, strength in zip(files, (1.0, 2.0), strict=True)]
    changed = changed_networks({"unet": network}, loras)["unet"].get_parameter(f"{ATTENTION}.weight")
    expected = network.get_parameter(f"{ATTENTION}.weight").numpy() + one[1] @ one[0] + 2 * other[1] @ other[0]
    np.testing.assert_allclose(changed.detach().numpy(), expected, atol=1e-6)


def test_the_network_itself_stays_as_it_is_and_shares_what_is_not_changed(tmp_path: Path, network: nn.Module) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    file = lora_file(tmp_path / "a.safetensors", peft_names({ATTENTION: halves(24, 32)}))
    changed = changed_networks({"unet": network}, [Lora(read_lora_file(file))])["unet"]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    own = {name for name, value in changed.named_parameters() if value is not network.get_parameter(name)}
    assert own == {f"{ATTENTION}.weight"}


def test_a_change_smaller_than_the_steps_of_half_precision_is_not_lost_among_others(tmp_path: Path) -> None:
    layer = nn.Linear(2, 1, bias=False).half().requires_grad_(False)
    layer.weight.copy_(torch.tensor([[1.0, 1.0]]))
    network = nn.ModuleDict({"a": layer})
    small = np.array([[3e-4, 0]], np.float32), np.ones((1, 1), np.float32)   # fp16 steps at 1 are 9.8e-4
    file = lora_file(tmp_path / "a.safetensors", peft_names({"a": small}))
    changed = changed_networks({"unet": network}, [Lora(read_lora_file(file))] * 2)["unet"]
    assert changed.get_parameter("a.weight").tolist() == [[1 + 2.0**-10, 1.0]]


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tensors", "message"), [
    ({"lora_unet_a.hada_w1_a": (1,)}, "a LoHa file"),
    ({"lora_unet_a.lokr_w1": (1,)}, "a LoKr file"),
    ({"unet.a.lora_A.weight": (1, 2), "unet.a.lora_B.weight": (2, 1), "unet.a.lora_magnitude_vector": (2,)},
     "a DoRA file"),
    ({"unet.conv_in.weight": (1,)}, "is no LoRA file"),
    ({"unet.a.lora_A.weight": (1, 2)}, "only one half of unet.a"),
    ({"unet.a.lora_A.weight": (1, 2), "unet.a.lora_B.weight": (2, 3)}, "are 1x2 and 2x3, which do not fit together"),
    ({"unet.a.lora_A.weight": (1, 2), "unet.a.lora_B.weight": (2, 1), "unet.a.bias": (2,)}, "is no part of a LoRA"),
    ({"lora_te_a.lora_down.weight": (1, 2), "lora_te_a.lora_up.weight": (2, 1)}, "only a text encoder"),
])  # fmt: skip
def test_a_file_that_is_no_plain_lora_is_refused(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    path = lora_file(tmp_path / "a.safetensors", {name: np.zeros(shape, np.float32) for name, shape in tensors.items()})
    with pytest.raises(WeightsError, match=message):
        read_lora_file(path)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.pt", b"PK\x03\x04", "is a pickle"),
    ("a.safetensors", b"\x80\x02}q\x00.", "is a pickle"),
    ("a.safetensors", b"<!DOCTYPE html>", "is a web page"),
    ("a.safetensors", b"", "is empty"),
])
def test_a_file_that_is_something_else_is_refused_unread(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_lora_file(tmp_path / name)


@pytest.mark.parametrize("named", [peft_names, kohya_names])
def test_a_lora_that_is_given_as_the_model_is_told_apart(tmp_path: Path, named: Callable[..., Any]) -> None:
    file = lora_file(tmp_path / "show.safetensors", named({VALUES: halves(192, 96)}))
    with pytest.raises(WeightsError, match="is a LoRA file") as caught:
        family_of_file(file)
    assert caught.value.hint == "name it in a preset: lora: [{file: show.safetensors}]"


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = lora_file(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="is cut off"):
        read_lora_file(path)


def test_scales_by_a_rule_that_is_not_applied_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(peft_names({VALUES: halves(192, 96)}), path, {"lora_adapter_metadata": '{"unet.use_rslora": true}'})
    with pytest.raises(WeightsError, match="rsLoRA"):
        read_lora_file(path)


# --- to which model it belongs ------------------------------------------------------------------------------------


def test_a_file_of_another_model_is_refused_by_what_it_says(tmp_path: Path) -> None:
    file = lora_file(tmp_path / "a.safetensors", base="xl")
    with pytest.raises(WeightsError, match="was trained on xl, but the model is mini"):
        open_lora(LoraSettings(file=str(file)), MINI)


def test_a_file_of_other_weights_is_refused_unless_any_will_do(tmp_path: Path) -> None:
    file = lora_file(tmp_path / "a.safetensors", base="mini", base_sha256="ab" * 32)
    with pytest.raises(WeightsError, match=f"abababababab, but those of .* have {weights_digest(MINI)[:12]}") as caught:
        open_lora(LoraSettings(file=str(file)), MINI)
    assert caught.value.hint is not None and "any_base: true" in caught.value.hint
    assert open_lora(LoraSettings(file=str(file), any_base=True), MINI).base == "mini"


def test_a_file_of_these_weights_is_taken(tmp_path: Path) -> None:
    file = lora_file(tmp_path / "a.safetensors", base="mini", base_sha256=weights_digest(MINI), license="MIT")
    found = open_lora(LoraSettings(file=str(file)), MINI)
    assert (found.license, found.rank) == ("MIT", 2)


def test_a_layer_that_the_model_has_not_is_named(tmp_path: Path) -> None:
    layer = "down_blocks.2.attentions.0.transformer_blocks.9.attn2.to_q"   # of xl
    file = lora_file(tmp_path / "a.safetensors", peft_names({layer: halves(1280, 1280)}))
    with pytest.raises(WeightsError, match=r"transformer_blocks\.9\.attn2\.to_q, which this model has not"):
        open_lora(LoraSettings(file=str(file)), MINI)


def test_a_layer_of_another_width_is_named_with_both_widths(tmp_path: Path) -> None:
    file = lora_file(tmp_path / "a.safetensors", peft_names({VALUES: halves(2048, 96)}))
    with pytest.raises(WeightsError, match="from 2048 to 96 channels, but in this model it is 192x96"):
        open_lora(LoraSettings(file=str(file)), MINI)


def test_a_preset_s_files_are_looked_at_in_order_and_the_wrong_one_is_named(tmp_path: Path) -> None:
    good = lora_file(tmp_path / "a.safetensors", peft_names({QUERIES: halves(128, 128)}))
    preset = Preset(lora=(LoraSettings(file=str(good)), LoraSettings(file=str(tmp_path / "b.safetensors"))))
    with pytest.raises(WeightsError, match=r"lora, entry 2: there is no file .*b\.safetensors"):
        check_loras(preset)
