"""Which golden numbers hold which part of colorcli to account, through which test, and how closely.

The tests fail if a folder of golden numbers is in no row, if a row names a test or a part that does not exist, or if
the folder allows more than its row does.
"""

import ast
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.golden.fixture import folder

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One folder of golden numbers."""

    parts: tuple[str, ...]                  # what the numbers go through, as module:name below colorcli
    tests: tuple[str, ...]                  # file:function below this folder, without "test_golden_"
    tolerance: float = 1e-4                 # largest absolute difference
    exceptions: Mapping[str, float] = field(default_factory=dict)   # tensors that may differ by more


GENERATION = {"generate*": 2e-3}   # complete runs, which make rounding larger

TABLE: dict[str, Row] = {
    "xl_sketch_encoder": Row(
        ("model.sketch_encoder:SketchEncoder",), ("networks:sketch_encoder_gives_the_maps_finest_first",)
    ),
    "xl_cluster_concat": Row(
        ("model.reference:ClusterProjection",),
        (
            "networks:projection_gives_the_context_of_both_encoders",
            "networks:recipes_build_the_weights_that_also_lie_there",
        ),
    ),
    "scalar_embedder": Row(
        ("model.scalars:canvas_vector", "model.scalars:crop_vector"),
        ("networks:scalars_are_embedded_and_packed",),
    ),
    "wd_tagger_tokens": Row(("model.reference:TaggerTower",), ("networks:tagger_gives_one_token_for_each_cell",)),
    "xl_unet_forward": Row(
        ("model.unet:ColorUNet", "model.unet:denoise"),
        ("networks:denoiser_gives_the_prediction_and_every_map_on_the_way",),
    ),
    "xl_masked_attention": Row(
        ("model.attention:cross_attention", "model.attention:Region"),
        ("attention:attention_layer_splits_by_the_mask",),
    ),
    "xl_unet_split_attention": Row(
        ("model.unet:ColorUNet", "model.unet:project_context", "model.attention:Region"),
        ("attention:denoiser_splits_every_cross_attention",),
    ),
    "xl_reference_injection": Row(
        ("model.reference_net:ReferenceNet", "model.unet:project_bank"),
        ("attention:decoder_reads_the_bank",),
    ),
    "xl_lora": Row(
        ("model.attention:Adapter",),
        ("attention:adapter_is_switched_scaled_merged_and_gone_again",),
    ),
    "xl_reference_injection_lora": Row(
        ("model.reference_net:ReferenceNet", "model.attention:Adapter"), ("attention:adapter_and_bank_together",)
    ),
    "xl_attention_injection": Row(
        ("sampling:ReferenceOnly", "sampling.injection:seen_of_key", "model.attention:Injection"),
        ("attention:reference_only_attention",),
    ),
    "attention_tables": Row(
        ("model.unet:group", "model.unet:published_strengths"), ("attention:tables_of_the_transformer_blocks",)
    ),
    "guidance_combine": Row(
        ("sampling:Guidance", "sampling:combine"), ("sampling:guidance_combines_the_branches",)
    ),
    "xl_guidance_window": Row(
        ("sampling:Guidance", "model.attention:AttentionPlan"),
        ("sampling:window_takes_the_reference_away_outside",),
    ),
    "noise_schedules": Row(
        ("sampling:scaled_linear", "sampling:step_sigmas", "sampling:make_scheduler"),
        (
            "sampling:noise_levels_and_their_times",
            "sampling:steps_of_every_sampler_and_schedule",
            "sampling:times_of_the_diffusers_schedulers",
        ),
        exceptions={"sigma_to_t": 1e-3},   # times up to 999
    ),
    "xl_sampling": Row(
        ("sampling:sample_sigmas", "sampling:sample_scheduler", "sampling:denoiser"),
        ("sampling:sampling_runs_and_every_call_in_them",),
        tolerance=1e-3,
    ),
    "xl_latent_inpaint_sampling": Row(
        ("sampling:Blend", "sampling:sample_scheduler"),
        ("sampling:background_is_laid_in_after_every_step_but_the_last",),
        tolerance=1e-3,
    ),
    "xl_conditions_base": Row(
        ("model.conditions:read_key", "model.conditions:frame_conditions", "sampling:guided", "sampling:sample"),
        ("conditions:conditions_of_every_branch_and_one_guided_call", "conditions:generations_from_pictures"),
        exceptions=GENERATION,
    ),
    "xl_conditions_adapter": Row(
        ("model.conditions:read_key", "model.conditions:frame_conditions", "sampling:guided", "sampling:sample"),
        ("conditions:conditions_of_every_branch_and_one_guided_call", "conditions:generations_from_pictures"),
        exceptions=GENERATION,
    ),
    "image_loading": Row(
        ("model.preprocess:white_square", "model.preprocess:long_edge", "model.preprocess:to_8bit"),
        (
            "image_loading:sketch_letterbox",
            "image_loading:margin_and_validation_sizes",
            "image_loading:value_ranges",
        ),
    ),
    "resize_crop": Row(
        ("model.preprocess:stretch", "model.preprocess:crop_to_aspect", "model.preprocess:clip_pixels",
         "model.preprocess:tagger_pixels", "prepare.background:aspect_crop_fractions"),
        (
            "resize_crop:stretch_and_aspect_crop",
            "resize_crop:scale",
            "resize_crop:crop_fractions",
            "resize_crop:encoder_preparation",
        ),
    ),
    "mask_ops": Row(
        ("prepare.masks:dilate", "prepare.masks:threshold"),
        (
            "mask_ops:grid_expansion",
            "mask_ops:bounding_box",
            "mask_ops:threshold",
            "mask_ops:dilation",
        ),
    ),
    "mask_extraction_wrapping": Row(
        ("model.segmentation:sketch_mask", "model.segmentation:reference_mask"),
        ("mask_extraction_wrapping:masks_around_a_placeholder_network",),
    ),
    "background_bleaching": Row(
        ("train.objectives.bleaching:bleach",), ("background_bleaching:bleaching_of_a_training_batch",)
    ),
    "gram_training_loss": Row(
        ("train.objectives.denoising:branch_losses", "train.objectives.denoising:add_noise"),
        ("gram_training_loss:losses_and_gradients_of_both_branches",),
    ),
    "xl_training_inputs_base": Row(
        ("train.objectives.published:xl_base_inputs",), ("training_inputs:inputs_of_the_base_stage",)
    ),
    "xl_training_inputs_adapter": Row(
        ("train.objectives.published:xl_refine_inputs", "train.objectives.denoising:add_noise"),
        ("training_inputs:inputs_of_the_refinement_and_one_call_with_them",),
        exceptions={"bank.*": 5e-4},
    ),
    "gram_loss": Row(
        ("train.objectives.gram:gram_loss", "train.objectives.gram:gram_matrices"),
        ("gram_loss:losses_and_matrices_of_every_setting",),
    ),
    # The SD2.1 model.
    "v2_sketch_encoder": Row(
        ("model.sketch_encoder:PyramidSketchEncoder",), ("v2_networks:sketch_encoder_gives_five_maps_finest_first",)
    ),
    "v2_feature_encoders": Row(
        ("model.side_encoders:SideEncoder",), ("v2_networks:side_encoder_reads_every_level_coarsest_first",)
    ),
    "v2_size_embedding": Row(("model.scalars:size_vector",), ("v2_networks:size_of_a_picture_as_a_vector",)),
    "v2_attention_tables": Row(("model.unet:group",), ("v2_networks:order_and_groups_of_the_transformer_blocks",)),
    "v2_unet_injection": Row(("model.unet:ColorUNet",), ("v2_networks:denoiser_reads_hints_and_styles",)),
    "v2_unet_lora": Row(
        ("model.unet:ColorUNet",), ("v2_networks:denoiser_with_an_adapter_for_each_side_of_the_mask",)
    ),
    "v2_conditions": Row(
        ("model.conditions_v2:frame_conditions",),
        ("v2_conditions:conditions_of_every_branch_and_one_guided_call", "v2_conditions:generation_from_pictures"),
        exceptions=GENERATION,
    ),
    "text_manipulation": Row(
        ("model.text_manipulation:edit_tokens", "model.text_manipulation:position_weight"),
        (
            "text_manipulation:edits_of_places",
            "text_manipulation:weight_of_a_place_and_its_heat",
        ),
    ),
}

HELPERS = ("networks.py", "networks_v2.py", "runs.py", "loading.py")   # what several golden tests share


def source_of(file: str) -> str:
    """The source of a file of tests beside this one."""
    path = HERE / f"test_golden_{file}.py"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


@pytest.mark.parametrize("name", TABLE)
def test_every_row_names_tests_that_exist_and_read_its_numbers(name: str) -> None:
    for test in TABLE[name].tests:
        file, _, function = test.partition(":")
        source = source_of(file)
        there = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
        assert f"test_golden_{function}" in there, f"{name}: there is no test {test}"
        assert f'"{name}"' in source, f"{name}: {file} does not read it"


@pytest.mark.parametrize("name", TABLE)
def test_every_row_names_parts_that_exist_and_that_its_tests_use(name: str) -> None:
    files = {test.partition(":")[0] for test in TABLE[name].tests}
    shared = [(HERE / helper).read_text(encoding="utf-8") for helper in HELPERS if (HERE / helper).is_file()]
    used = " ".join([*map(source_of, files), *shared])
    for part in TABLE[name].parts:
        module, _, attribute = part.partition(":")
        assert hasattr(importlib.import_module(f"colorcli.{module}"), attribute), f"{name}: there is no {part}"
        assert attribute in used, f"{name}: its tests do not use {part}"


def test_every_folder_of_golden_numbers_is_in_the_table() -> None:
    there = {path.parent.name for path in folder().glob("*/config.json")}
    if not there:
        pytest.skip(f"no golden numbers in {folder()} (set COLORCLI_GOLDEN)")
    assert there <= set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_no_folder_allows_more_than_its_row(name: str) -> None:
    path = folder() / name / "config.json"
    if not path.is_file():
        pytest.skip(f"golden numbers {name} are not in {folder()} (set COLORCLI_GOLDEN)")
    config, row = json.loads(path.read_text()), TABLE[name]
    assert config["tolerance_abs"] <= row.tolerance
    for tensors, allowed in config.get("tolerance_abs_for", {}).items():
        assert allowed <= row.exceptions.get(tensors, row.tolerance), tensors
