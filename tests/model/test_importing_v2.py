"""A published SD2.1 file becomes a model with every number in its place, or one learns what is wrong with it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from colorcli.errors import OutputError, UsageError, WeightsError
from colorcli.loading import load_pipeline
from colorcli.model import importing
from colorcli.model.importing import import_model
from colorcli.model.published_file import read_published
from colorcli.model.single_file import kind_of
from colorcli.model.weights import towers_for, verify, weights_digest
from colorcli.pipeline import ColorizePipeline
from tests.model.published import (
    CLIP,
    TAGGER,
    build_v2_directly,
    manifest,
    small_shape,
    write_hollow,
    write_published,
    write_tokenizer,
    write_vit_h,
)

UNET = "model.diffusion_model."
LAION = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with both sides of CLIP inside."""
    return write_published(tmp_path_factory.mktemp("v2") / "v2-full.safetensors", "v2", towers=True)


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as it is published, without CLIP."""
    return write_published(tmp_path_factory.mktemp("v2") / "v2-eps.safetensors", "v2")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of CLIP as open_clip names it, with a tokenizer."""
    return write_tokenizer(write_vit_h(tmp_path_factory.mktemp("clip")).parent)


@pytest.fixture(scope="session")
def expected(whole: Path) -> dict[str, Any]:
    return build_v2_directly(whole)


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLORCLI_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def assert_same(found: Any, expected: Any) -> None:
    ours, theirs = found.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
    for (name, buffer), other in zip(found.named_buffers(), expected.buffers(), strict=True):
        assert torch.equal(buffer, other), name


def test_an_imported_model_has_every_number_of_the_file(whole: Path, models: Path, expected: dict[str, Any]) -> None:
    made = import_model(whole)
    assert (made.folder, made.model, made.license, made.prediction) == (models / "v2", "v2", "CC-BY-NC-SA-4.0", "v")
    loaded, read = ColorizePipeline.from_pretrained("v2", dtype=torch.float16), read_published(whole)
    assert loaded.variant.name == "v2"
    assert read.keys() == expected.keys()
    for name in expected.keys() - {"scheduler"}:
        assert_same(getattr(loaded, name), expected[name])
        assert_same(read[name], expected[name])
    assert (loaded.vae.config.scaling_factor, loaded.image_encoder.config.num_attention_heads) == (0.18215, 2)
    assert all(check.state == "ok" for check in verify(made.folder))
    assert any("vocab.json and merges.txt" in note for note in made.notes)   # no file of weights has them
    # The tables of the schedule, and a number of CLIP's training.
    assert sorted(len(names) for names in made.ignored.values()) == [1, 12]
    assert made.used == len(manifest("v2")) - 13


def test_the_file_by_itself_is_the_model_that_its_import_makes(
    bare: Path, clip: Path, expected: dict[str, Any]
) -> None:
    made = import_model(bare, clip=clip, name="mine")
    assert not made.notes
    assert towers_for(bare) == made.folder and len(weights_digest(bare)) == 64
    one, other = (load_pipeline(model, device="cpu", memory="full") for model in (str(bare), "mine"))
    for name in expected.keys() - {"scheduler"}:
        assert_same(getattr(one, name), getattr(other, name))
    assert one.scheduler.config["prediction_type"] == other.scheduler.config["prediction_type"] == "epsilon"
    assert one.tokenizer("b a")["input_ids"] == other.tokenizer("b a")["input_ids"]


def test_both_sides_of_clip_come_from_either_naming_of_it(
    bare: Path, clip: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    hugging = tmp_path / "CLIP-ViT-H-14"
    write_tokenizer(hugging)
    sides = {**expected["image_encoder"].state_dict(), **expected["text_encoder"].state_dict()}
    save_file({name: value.contiguous() for name, value in sides.items()} | {"logit_scale": torch.ones(())},
              hugging / "model.safetensors")
    for folder in (clip, hugging):
        made = import_model(bare, clip=folder, name=folder.name, prediction="v")
        for side in ("image_encoder", "text_encoder"):
            found = load_file(made.folder / side / "model.safetensors")
            state = expected[side].state_dict()
            assert found.keys() == state.keys()
            assert all(torch.equal(found[name], value) for name, value in state.items())
        # Of 20 words: a, b, c, ..., r, and both ends.
        loaded = ColorizePipeline.from_pretrained(made.folder)
        assert loaded.tokenizer.convert_tokens_to_ids(["a", "c", "<|endoftext|>"]) == [0, 2, 19]
        assert loaded.scheduler.config["prediction_type"] == "v_prediction"


def test_a_second_model_shares_the_clip_of_the_first(bare: Path, clip: Path, models: Path) -> None:
    first = import_model(bare, clip=clip / "open_clip_model.safetensors")
    second = import_model(bare, name="again")
    for side in ("image_encoder", "text_encoder"):
        one, other = (made.folder / side / "model.safetensors" for made in (first, second))
        assert one.samefile(other)
    assert (second.folder / "tokenizer" / "tokenizer.json").is_file()
    assert second.towers["text_encoder"] == str(first.folder)


def test_the_tokenizer_of_another_model_is_left_with_a_remark(bare: Path, clip: Path, tmp_path: Path) -> None:
    file = tmp_path / "downloads" / "clip.safetensors"
    write_tokenizer(file.parent, words=12)
    file.symlink_to(clip / "open_clip_model.safetensors")
    made = import_model(bare, clip=file)
    assert any("knows 12 words and the text encoder 20" in note for note in made.notes)
    assert not (made.folder / "tokenizer").exists() and (made.folder / "text_encoder").is_dir()


def test_a_clip_without_its_text_side_is_enough(bare: Path, clip: Path, tmp_path: Path) -> None:
    seeing = {name: value for name, value in load_file(clip / "open_clip_model.safetensors").items()
              if name.startswith("visual.")}
    save_file(seeing, tmp_path / "visual.safetensors")
    made = import_model(bare, clip=tmp_path / "visual.safetensors")
    assert not (made.folder / "text_encoder").exists() and (made.folder / "image_encoder").is_dir()
    assert ColorizePipeline.from_pretrained("v2").text_encoder is None


# --- what is refused, told by names and shapes alone --------------------------------------------------------------


def small(family: str = "v2", towers: bool = False) -> dict[str, list[int]]:
    return {name: small_shape(name, shape, family)  # type: ignore[arg-type]
            for name, shape in manifest(family).items() if towers or not name.startswith((CLIP, TAGGER))}


def refused(file: Path, **options: Any) -> str:
    with pytest.raises((WeightsError, OutputError, UsageError)) as caught:
        import_model(file, **options)
    return f"{caught.value.message} | {caught.value.hint}"


def test_a_real_file_fits_and_needs_the_room_of_all_its_numbers(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 30_000_000})
    monkeypatch.setattr(importing.shutil, "disk_usage", lambda path: usage)
    said = refused(write_hollow(tmp_path / "v2-full.safetensors", manifest("v2")))
    # 2733727804 numbers by the published count, one of them no part of the model, in two bytes; and some room to spare.
    assert "the model needs 5.49 GB" in said
    assert not list(models.iterdir())


def test_a_missing_clip_is_named_with_where_to_get_it(tmp_path: Path) -> None:
    said = refused(write_hollow(tmp_path / "v2.safetensors", small()))
    assert LAION in said and "--clip FILE" in said


def test_a_tower_of_another_model_is_refused_by_what_tells_it(tmp_path: Path, clip: Path) -> None:
    v2 = write_hollow(tmp_path / "v2.safetensors", small())
    xl = write_hollow(tmp_path / "sdxl.safetensors", small("sdxl"))
    towers = {prefix: {name.removeprefix(prefix + "model."): shape for name, shape in small("sdxl", True).items()
                       if name.startswith(prefix)} for prefix in (CLIP, TAGGER)}
    bigg = write_hollow(tmp_path / "bigg.safetensors", towers[CLIP])
    tagger = write_hollow(tmp_path / "tagger.safetensors", towers[TAGGER])
    said = refused(v2, clip=bigg)
    assert "a CLIP with 48 layers" in said and "has 32" in said and LAION in said
    assert "is a tagger, not a CLIP tower" in refused(v2, clip=tagger)
    assert "reads no tagger | leave --tagger out" in refused(v2, clip=clip, tagger=tagger)
    said = refused(xl, clip=clip, tagger=tagger)
    assert "a CLIP with 32 layers" in said and "has 48" in said and "ViT-bigG" in said


def test_a_clip_of_another_width_is_refused(tmp_path: Path) -> None:
    shapes = small(towers=True) | {CLIP + "visual.model.proj": [160, 48]}
    said = refused(write_hollow(tmp_path / "v2.safetensors", shapes))
    assert "the model reads tokens 64 wide, and 48 is the width of the CLIP tower" in said


@pytest.mark.parametrize("lost", ["style_encoder.", "bg_encoder.", UNET + "warp_modules.", "control_encoder."])
def test_a_file_without_one_of_the_sides_is_told_what_it_lacks(tmp_path: Path, lost: str) -> None:
    shapes = small(towers=True)
    count = sum(name.startswith(lost) for name in shapes)
    file = write_hollow(tmp_path / "v2.safetensors", {n: s for n, s in shapes.items() if not n.startswith(lost)})
    said = refused(file)
    assert f"v2.safetensors does not fit v2: {count} tensors are missing ({lost}" in said


def test_the_earlier_models_of_the_family_are_called_what_they_are(tmp_path: Path) -> None:
    sides = ("style_encoder.", "bg_encoder.", UNET + "warp_modules.", UNET + "style_modules.")
    for name, more in (("mult-eps-ft", ".lora_"), ("switch-eps", "nothing more")):
        shapes = {n: s for n, s in small().items() if not n.startswith(sides) and more not in n}
        said = refused(write_hollow(tmp_path / f"{name}.safetensors", shapes))
        assert f"{name}.safetensors is an SD model without" in said
        assert "v2-* only: how the earlier models are built is not known" in said


@pytest.mark.parametrize(("change", "said"), [
    ({"style_encoder.zero_layers.3.bias": [7]}, "style_encoder.zero_layers.3.bias is [7] and should be [256]"),
    ({UNET + "output_blocks.2.1.conv.bias": None}, f"1 tensor is missing ({UNET}output_blocks.2.1.conv.bias)"),
    ({UNET + "style_modules.11.2.bias": None}, f"1 tensor is missing ({UNET}style_modules.11.2.bias)"),
    *(({f"style_encoder.{lost}": None}, f"1 tensor is missing (style_encoder.{lost})")
      for lost in ("input_blocks.1.0.out_layers.3.weight", "time_embed.0.bias", "label_emb.0.0.weight")),
    ({"bg_encoder.output_blocks.0.0.in_layers.0.bias": [64]}, "1 is unknown"),
    ({UNET + "conv_fg.bias": [64]}, "1 is unknown"),
    ({CLIP + "visual.model.ln_pre.bias": None}, "1 tensor is missing (visual.ln_pre.bias)"),
    ({CLIP + "transformer.model.ln_final.bias": None}, "v2.safetensors does not fit: 1 tensor is missing"),
    ({UNET + "input_blocks.0.0.weight": []}, "input_blocks.0.0.weight is []"),
    ({UNET + "input_blocks.1.0.out_layers.3.weight": [7, 7, 7, 7]}, "v2"),
    ({CLIP + "visual.model.conv1.weight": [7]}, "the sizes of its image_encoder cannot be read"),
])
def test_a_tensor_that_does_not_fit_is_named(
    tmp_path: Path, models: Path, change: dict[str, list[int] | None], said: str
) -> None:
    shapes = small(towers=True) | change
    file = write_hollow(tmp_path / "v2.safetensors", {n: s for n, s in shapes.items() if s is not None})
    assert said in refused(file)
    assert not models.exists() or not list(models.iterdir())


def test_families_are_told_from_names_alone() -> None:
    names = [name for name in manifest("v2") if not name.startswith(CLIP)]
    assert kind_of(names) == "v2"
    assert kind_of([name for name in names if name.startswith((UNET + "input", UNET + "output"))]) == "older"
    assert kind_of([name for name in manifest("sdxl") if "bg_" not in name]) == "xl"


def test_what_a_file_is_told_to_be_made_of(whole: Path) -> None:
    from colorcli.model.description import describe

    told = describe(str(whole))
    assert told.family == "v2"
    assert {part.name for part in told.parts} >= {
        "unet", "adapter", "sketch_encoder", "background_encoder", "style_encoder", "vae", "image_encoder",
        "text_encoder"}
    assert json.dumps(told.as_json())
