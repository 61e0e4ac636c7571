"""Fine-tuning on a show: what is read of its sheets, what learns, and that the file paints what training saw."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from colorcli.errors import MissingExtraError, PresetError
from colorcli.images import FORMATS, read_picture, write_picture
from colorcli.loading import load_pipeline
from colorcli.model.build import Components
from colorcli.model.lora_file import read_lora_file
from colorcli.model.lora_merge import Lora, changed_networks
from colorcli.model.matcher import RegionMatcher
from colorcli.model.unet import denoise, project_context
from colorcli.pipeline import ColorizePipeline
from colorcli.prepare.region_views import VIEW_SIDE, VIEWS
from colorcli.presets import LoraSettings, default_preset
from colorcli.train.data.pairs import RegionPair
from colorcli.train.data.sheets import Lesson, SheetBatch, SheetSet, encoded_sheets, find_sheets, without_lines
from colorcli.train.objectives.lora import NAME, LearningLayers, lay_in, lora_losses
from colorcli.train.recipe import StageSection, read_recipe
from colorcli.train.run.loop import train
from colorcli.train.sections import LoraSection, SheetsSection
from colorcli.train.stages import trained_modules
from colorcli.train.turn import Turn
from tests import tiny_xl

peft = pytest.importorskip("peft")

ALL = LoraSection(rank=2, alpha=4, layers=("self", "cross", "projection"))


def learned(components: Components, section: LoraSection = ALL) -> LearningLayers:
    """Lay changes into networks that are not zero, as after some training."""
    lay_in(components, section, seed=0)
    layers = components.beside[NAME]
    assert isinstance(layers, LearningLayers)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, half in layers.named_parameters():
            if ".up." in name:
                half.copy_(0.3 * torch.randn(half.shape, generator=generator))
    return layers


def call(unet, context, *, project: bool = False):
    generator = torch.Generator().manual_seed(2)
    latents, y = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 512, generator=generator)
    with torch.no_grad():
        return denoise(unet, latents, 500.0, y, project_context(unet, context) if project else context)


def picture(path: Path, color: Sequence[float], size: tuple[int, int] = (96, 128), left: int = 24) -> Path:
    """A box of one color with a black line around it, on white."""
    image = np.ones((size[1], size[0], 3), np.float32)
    image[30:100, left : left + 50] = 0
    image[33:97, left + 3 : left + 47] = color
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, image, None, FORMATS["png8"])
    return path


@pytest.fixture(scope="module")
def sheets(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sheets")
    for place, left in enumerate((10, 24, 36)):
        picture(folder / "red" / f"{place}.png", (0.8, 0.2, 0.2), left=left)
    picture(folder / "blue" / "only.png", (0.2, 0.3, 0.9))
    return folder


@pytest.fixture(scope="module")
def mini() -> ColorizePipeline:
    return load_pipeline("mini", "cpu")


@pytest.fixture(scope="module")
def encoded(mini, sheets, tmp_path_factory) -> Path:
    section = SheetsSection(folder=sheets, references=2, same=0.0)
    return encoded_sheets(tmp_path_factory.mktemp("cache"), section, "weights", lambda: mini, lambda line: None)


# --- the changes --------------------------------------------------------------------------------------------------


def test_the_file_paints_what_the_networks_painted_while_they_were_trained(tmp_path):
    trained, plain = (Components(**tiny_xl.components()) for _ in range(2))
    layers = learned(trained)
    save_file({name: half.contiguous() for name, half in layers.tensors().items()}, tmp_path / "a.safetensors")
    networks = {"unet": plain.unet, "projection": plain.projection}
    merged = changed_networks(networks, [Lora(read_lora_file(tmp_path / "a.safetensors"))])
    clip, tags = torch.randn(1, 257, 32), torch.randn(1, 16, 64)
    with torch.no_grad():
        context, seen = merged["projection"](clip, tags), trained.projection(clip, tags)
        assert (context - plain.projection(clip, tags)).abs().max() > 0.1
    torch.testing.assert_close(context, seen, atol=1e-5, rtol=1e-4)
    plain_out, out = call(plain.unet, seen), call(trained.unet, seen)
    assert (out - plain_out).abs().max() > 0.1
    for project in (False, True):   # a render projects the context once, for all steps
        torch.testing.assert_close(call(merged["unet"], seen, project=project), out, atol=1e-4, rtol=1e-4)


def test_new_changes_change_nothing_and_only_they_learn():
    components = Components(**tiny_xl.components())
    context = torch.randn(2, 16, tiny_xl.CONTEXT)
    before = call(components.unet, context)
    lay_in(components, ALL, seed=0)
    torch.testing.assert_close(call(components.unet, context), before, atol=0, rtol=0)
    components.freeze()
    for module in trained_modules(components, "lora").values():
        module.requires_grad_(True)
    learning = {name for name, value in components.unet.named_parameters() if value.requires_grad}
    learning |= {name for name, value in components.projection.named_parameters() if value.requires_grad}
    assert learning and all(".lora_A." in name or ".lora_B." in name for name in learning)
    # Of every block q, k, v and the output of both attentions; 6 layers of the projection; two halves each.
    blocks = len([name for name, _ in components.unet.named_modules() if name.endswith(".attn2")])
    assert len(learning) == 2 * (8 * blocks + 6)


def test_the_parts_of_a_recipe_choose_what_is_changed():
    components = Components(**tiny_xl.components())
    lay_in(components, LoraSection(rank=3, layers=("cross",)), seed=0)
    names = components.beside[NAME].tensors()
    assert all(name.startswith("unet.") and ".attn2.to_" in name for name in names)
    assert {half.shape[0] for name, half in names.items() if name.endswith("lora_A.weight")} == {3}


def test_without_peft_the_extra_to_install_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match="needs the package peft") as caught:
        lay_in(Components(**tiny_xl.components()), ALL, seed=0)
    assert caught.value.hint == "pip install 'colorcli[train]'"


# --- the sheets ---------------------------------------------------------------------------------------------------


def test_every_folder_is_a_character_and_drawings_are_found_beside_it(tmp_path):
    for name in ("hana/front.png", "hana/line/front.png", "hana/side.png", "ken/color/walk.png", "ken/key.png"):
        picture(tmp_path / name, (0.5, 0.5, 0.5))
    found = find_sheets(tmp_path)
    assert {name: [(one.color.name, one.line is not None) for one in pictures] for name, pictures in found.items()} == {
        "hana": [("front.png", True), ("side.png", False)], "ken": [("key.png", False), ("walk.png", False)],
    }


def test_a_folder_of_one_character_needs_no_folder_in_it(tmp_path):
    picture(tmp_path / "a.png", (0.5, 0.5, 0.5))
    assert [len(pictures) for pictures in find_sheets(tmp_path).values()] == [1]


@pytest.mark.parametrize(("made", "message"), [
    ("", "holds no pictures"), ("notes.txt", "holds no pictures"), (None, "there is no folder"),
])
def test_sheets_that_are_not_there_are_refused(tmp_path, made, message):
    if made:
        (tmp_path / made).write_text("")
    with pytest.raises(PresetError, match=message):
        find_sheets(tmp_path if made is not None else tmp_path / "nowhere")


def test_a_drawing_of_another_size_is_refused_with_both_sizes(mini, tmp_path):
    picture(tmp_path / "a.png", (0.5, 0.5, 0.5))
    picture(tmp_path / "line" / "a.png", (1, 1, 1), size=(80, 128))
    with pytest.raises(PresetError, match=r"is 80x128, but its picture .* is 96x128"):
        encoded_sheets(tmp_path / "c", SheetsSection(folder=tmp_path), "weights", lambda: mini, lambda line: None)


def test_colors_run_together_under_the_line_between_them_and_stop_at_the_mask():
    color, ink, mask = np.zeros((20, 40, 3), np.float32), np.zeros((20, 40), np.float32), np.ones((20, 40), np.float32)
    color[:, :18], color[:, 22:] = (1, 0, 0), (0, 0, 1)
    ink[:, 18:22] = 1
    mask[:, :4] = 0
    flat = without_lines(color, ink, mask)
    assert (flat[:, :4] == 1).all() and (flat[:, 4:19] == (1, 0, 0)).all() and (flat[:, 21:] == (0, 0, 1)).all()


def test_a_picture_is_colored_from_others_of_its_character_or_from_itself_if_there_are_none(encoded):
    keys: dict[int, set[int]] = {}
    for lesson in SheetSet(encoded).lessons:
        keys.setdefault(lesson.frame, set()).add(lesson.key)
    # Blue has the one picture 0, red has 2, 4 and 6; odd numbers are mirror images.
    assert keys == {0: {0}, 1: {0}} | {frame: {2, 4, 6} - {frame - frame % 2} for frame in range(2, 8)}


def test_what_is_to_come_out_is_the_flat_color_and_a_mirrored_picture_is_its_mirror(mini, encoded):
    found = SheetSet(encoded)
    one, mirrored = (found.together([Lesson(frame, 2)]).to("cpu") for frame in (2, 3))
    layer = mini.vae.decode(one.latents / mini.vae.config["scaling_factor"]).sample[0]
    inside = one.mask[0, 0] > 0.99
    colors = torch.nn.functional.avg_pool2d(layer[None], 8)[0][:, inside] / 2 + 0.5
    assert (colors.mean(1) - torch.tensor([0.8, 0.2, 0.2])).abs().max() < 0.05
    torch.testing.assert_close(one.mask.flip(-1), mirrored.mask, atol=0.02, rtol=0)


def test_sheets_are_read_anew_only_if_a_picture_changes(mini, tmp_path):
    picture(tmp_path / "s" / "a.png", (0.8, 0.2, 0.2))
    said: list[str] = []
    section = SheetsSection(folder=tmp_path / "s", mirrored=False)
    files = [encoded_sheets(tmp_path / "c", section, "weights", lambda: mini, said.append) for _ in range(2)]
    picture(tmp_path / "s" / "a.png", (0.2, 0.8, 0.2))
    files.append(encoded_sheets(tmp_path / "c", section, "weights", lambda: mini, said.append))
    assert files[0] == files[1] != files[2] and len(said) == 2


# --- training -----------------------------------------------------------------------------------------------------


def test_the_loss_is_nothing_for_a_network_that_sees_the_clean_colors(mini, encoded):
    """With v = (sqrt(a) x - x0) / sqrt(1 - a) the loss is zero, wherever a run begins and whatever the noise is."""
    batch = SheetSet(encoded).batch(Turn(1, "lora", 0), 4).to("cpu")
    alphas = mini.scheduler.alphas_cumprod

    class Knows(torch.nn.Linear):
        def forward(self, x, steps, y, context, maps):
            a = alphas[steps.long()][:, None, None, None]
            return (a.sqrt() * x - batch.latents) / (1 - a).sqrt()

    components = replace(Components.of(mini), unet=Knows(1, 1))
    options = StageSection(name="lora", steps=1, batch=4, rate=1.0, lora=LoraSection(layers=("self",)))
    with torch.no_grad():
        losses = lora_losses(components, batch, Turn(1, "lora", 0), options)
    assert float(losses["loss"]) < 1e-6 and "match" not in losses


def test_the_matcher_learns_the_colors_of_a_show_and_its_own_weights_stay():
    """Three regions of one look: only from the show's pictures can be known which of them has which color."""
    torch.manual_seed(0)
    components = Components(**tiny_xl.components(), matcher=RegionMatcher(3, 4, width=16, layers=1, heads=2))
    components.freeze()
    before = {name: value.clone() for name, value in components.matcher.state_dict().items()}
    tokens = torch.randn(3, 3 + 4 + 7)
    unseen = torch.zeros(3, VIEWS, VIEW_SIDE, VIEW_SIDE, dtype=torch.uint8)
    pair = RegionPair(frame=tokens, key=torch.randn(3, 14), color_of=torch.tensor([0, 1, 2]), palette=torch.eye(3),
                      right=torch.eye(3)[[2, 0, 1]].bool(), rule=torch.zeros(3, 3), pixels=torch.full((3,), 99),
                      views=unseen, key_views=unseen)
    nothing = torch.zeros(1)
    batch = SheetBatch(nothing, nothing, nothing, nothing, (), None, (), 0.3, (pair,) * 4)
    options = StageSection(name="lora", steps=40, batch=4, rate=1.0, lora=LoraSection(rank=4))
    lay_in(components, options.lora, seed=0)   # unset, what is changed is the matcher where there is one
    layers = components.beside[NAME].requires_grad_(True)
    assert {name.split(".")[0] for name in layers.tensors()} == {"matcher"}
    optimizer = torch.optim.Adam(layers.parameters(), lr=0.03)
    losses = []
    for step in range(40):
        found = lora_losses(components, batch, Turn(1, "lora", step), options)
        losses.append(float(found["match"]))
        found["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.2 * losses[0] and float(found["accuracy"]) == 1.0
    now = dict(components.matcher.named_parameters())
    for name, value in before.items():
        layer, _, last = name.rpartition(".")
        assert torch.equal(now.get(name, now.get(f"{layer}.base_layer.{last}")), value), name


RECIPE = """\
name: show
license: LicenseRef-show
sheets: {folder: SHEETS, references: 1, mirrored: false}
stages:
  - {name: lora, steps: 2, batch: 2, rate: 5.0e-2, lora: {rank: 2, alpha: 4, layers: [self, cross, matcher]}}
"""


def test_a_run_writes_one_small_file_that_colors_with_its_preset_and_leaves_the_model_alone(
    mini, sheets, tmp_path, monkeypatch
):
    monkeypatch.setenv("COLORCLI_RUNS", str(tmp_path / "runs"))
    recipe = tmp_path / "show.yaml"
    recipe.write_text(RECIPE.replace("SHEETS", str(sheets)))
    run = train(recipe, lambda line: None, device="cpu")
    file = run / "show.safetensors"
    said = read_lora_file(file)
    assert (said.base, said.license, said.rank) == ("mini", "LicenseRef-show", 2)
    assert file.stat().st_size < 400_000 and not (run / "model").exists()
    assert file.stat().st_mode == recipe.stat().st_mode   # whoever may read what this user writes may color with it
    frame = read_picture(picture(tmp_path / "line.png", (1, 1, 1)))
    key = read_picture(sheets / "red" / "0.png")
    before = mini(frame, reference=key).images[0]
    tuned = mini.with_loras([LoraSettings(file=str(file), strength=2.0)])
    assert np.abs(tuned(frame, reference=key).images[0] - before).max() > 1e-3
    assert np.array_equal(mini(frame, reference=key).images[0], before)
    preset = default_preset("mini").model_copy(update={"lora": (LoraSettings(file=str(file), strength=2.0),)})
    loaded = load_pipeline("mini", "cpu", loras=preset.lora)
    same = loaded(frame, reference=key, preset=preset).images[0]
    np.testing.assert_array_equal(same, tuned(frame, reference=key).images[0])
    with pytest.raises(PresetError, match=r"the preset has lora \(show.safetensors\), but this pipeline was loaded"):
        mini(frame, reference=key, preset=preset)


@pytest.mark.parametrize(("text", "message"), [
    ("name: a\nstages: [{name: lora, steps: 1, batch: 1, rate: 1}]", "needs sheets"),
    (RECIPE + "  - {name: colorizer, steps: 1, batch: 2, rate: 1}\n", "the only one of its recipe"),
    (RECIPE.replace("rank: 2", "rank: 0"), "rank is 0, but it must be a whole number, 1 to 256"),
])
def test_a_recipe_that_makes_no_lora_is_refused(tmp_path, text, message):
    path = tmp_path / "show.yaml"
    path.write_text(text)
    with pytest.raises(PresetError, match=message):
        read_recipe(path)
