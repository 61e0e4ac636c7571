"""Every measure gives what its definition says, on pictures and numbers whose answer is known beforehand."""

import math
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from colorcli.errors import MissingExtraError, UsageError, WeightsError
from colorcli.train.evaluation.scores.distributions import set_distance
from colorcli.train.evaluation.scores.drift import gram_drift, line_drift
from colorcli.train.evaluation.scores.features import clean_square, open_features, tagger_features
from colorcli.train.evaluation.scores.judge import (
    background_similarity,
    color_tags,
    load_judge,
    part_color_distance,
    shape_tags,
    tag_f1,
)
from colorcli.train.evaluation.scores.lines import found_lines, line_agreement
from colorcli.train.evaluation.scores.pixels import ms_ssim, psnr
from colorcli.train.evaluation.scores.table import COLUMNS, METRICS, column_of, columns_of, metrics_named
from tests.finish.studio import face
from tests.model.onnx_made import node, save

RNG = np.random.default_rng(3)


def gray(value, size=(200, 180)):
    return np.full((*size, 3), value, np.float32)


@pytest.fixture(scope="session")
def judge():
    return load_judge()


# --- sets of pictures ----------------------------------------------------------------------------------------------


def test_the_frechet_distance_of_two_gaussians_is_the_closed_form():
    x = torch.from_numpy(RNG.normal(size=(400, 3)) @ np.diag([1.0, 2.0, 0.5]))
    shift, scale = torch.tensor([3.0, -1.0, 0.5]).double(), 1.5
    found = set_distance(x, scale * (x - x.mean(0)) + x.mean(0) + shift)
    spread = float(torch.cov(x.T).trace())  # commuting covariances: |m|^2 + tr(C) (1 - s)^2
    assert found.fid == pytest.approx(float(shift.square().sum()) + spread * (1 - scale) ** 2, rel=1e-6)
    assert found.pictures == 400


def test_a_set_is_at_no_distance_from_itself_and_one_picture_has_none():
    x = torch.from_numpy(RNG.normal(size=(50, 4)))
    assert set_distance(x, x.flip(0)).fid == pytest.approx(0, abs=1e-6)
    assert set_distance(x, x[:1]) is None


def test_the_kernel_distance_is_the_unbiased_estimator_written_out():
    x, y = RNG.normal(size=(7, 5)), RNG.normal(size=(7, 5)) + 0.7
    def kernel(a, b):
        return (a @ b / 5 + 1) ** 3

    def mean(values):
        return sum(values) / len(values)

    expected = (
        mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
        + mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
        - 2 * mean([kernel(a, b) for a in x for b in y])
    )
    assert set_distance(torch.from_numpy(x), torch.from_numpy(y)).kid == pytest.approx(expected, rel=1e-9)


def test_the_kernel_distance_of_two_draws_of_one_thing_is_zero_on_average():
    draws = [set_distance(*torch.randn(2, 24, 4, generator=torch.Generator().manual_seed(seed)).double())
             for seed in range(30)]
    kids, fids = [found.kid for found in draws], [found.fid for found in draws]
    assert abs(np.mean(kids)) < 3 * np.std(kids) / math.sqrt(len(kids))
    assert min(fids) > 0.1  # which is why KID stands beside it: FID of a small set is never near 0


def test_comparing_sets_leaves_the_random_numbers_of_others_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    set_distance(torch.randn(9, 2, generator=torch.Generator().manual_seed(1)), torch.zeros(9, 2))
    assert torch.rand(1) == expected


# --- pixels --------------------------------------------------------------------------------------------------------


def test_psnr_is_the_formula_by_hand():
    assert psnr(gray(0.6), gray(0.4)) == pytest.approx(10 * math.log10(255**2 / 51**2), abs=1e-4)
    half = gray(0.4)
    half[:100] = 0.6
    assert psnr(half, gray(0.4)) == pytest.approx(10 * math.log10(2 * 255**2 / 51**2), abs=1e-4)


def test_a_picture_that_is_its_truth_gets_the_highest_psnr_and_ms_ssim():
    picture = np.rint(face()[1] * 255).astype(np.float32) / 255
    assert psnr(picture, picture) == 100
    assert psnr(picture, picture + np.float32(0.001)) == 100  # a file could not hold the difference
    assert ms_ssim(picture, picture) == pytest.approx(1, abs=3e-4)


def test_ms_ssim_falls_with_blur_and_is_none_where_a_picture_is_too_small():
    picture = face()[1]
    little, much = (ms_ssim(cv2.GaussianBlur(picture, (0, 0), sigma), picture) for sigma in (1.5, 6))
    assert 1 > little > much > 0
    assert ms_ssim(gray(0.5, (175, 300)), gray(0.5, (175, 300))) is None


def test_without_torchmetrics_the_extra_is_named(monkeypatch):
    for module in ("torchmetrics", "torchmetrics.functional.image", "torchmetrics.image.fid"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError) as caught:
        psnr(gray(0), gray(0))
    assert "colorcli[train]" in caught.value.hint
    with pytest.raises(MissingExtraError):
        set_distance(torch.zeros(4, 2), torch.zeros(4, 2))


# --- lines ---------------------------------------------------------------------------------------------------------


def bars(*columns, width=64):
    ink = np.zeros((40, width), np.float32)
    ink[:, list(columns)] = 1
    return ink


def test_lines_agree_with_themselves_and_less_when_they_are_moved():
    ink = bars(10, 40)
    assert line_agreement(ink, ink).f1 == 1
    assert line_agreement(ink, bars(12, 42)).f1 == 1                 # within reach
    assert line_agreement(ink, bars(12, 50)).f1 == pytest.approx(0.5)
    assert line_agreement(ink, bars(20, 50)).f1 == 0


def test_a_line_too_much_costs_precision_and_a_missing_one_recall():
    more, less = line_agreement(bars(10), bars(10, 40)), line_agreement(bars(10, 40), bars(10))
    assert (more.precision, more.recall) == (0.5, 1)
    assert (less.precision, less.recall) == (1, 0.5)
    assert more.f1 == pytest.approx(2 / 3)


def test_blank_paper_agrees_with_blank_paper_only():
    assert line_agreement(bars(), bars()).f1 == 1
    assert line_agreement(bars(), bars(10)).f1 == line_agreement(bars(10), bars()).f1 == 0


def test_the_lines_of_a_colored_drawing_are_those_of_the_drawing():
    drawn, truth, _ = face()
    ink = 1 - drawn.mean(axis=2)
    assert line_agreement(ink, found_lines(truth)).f1 > 0.95
    moved = np.roll(truth, 12, axis=1)
    assert line_agreement(ink, found_lines(moved)).f1 < 0.6


# --- drift ---------------------------------------------------------------------------------------------------------


def test_drift_is_zero_where_keys_change_nothing_or_turn_all_tokens_alike():
    tokens = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))[0]
    assert gram_drift(torch.stack([tokens, tokens, tokens])) == pytest.approx(0, abs=1e-9)
    assert gram_drift(torch.stack([tokens, tokens @ turn, 3 * tokens])) == pytest.approx(0, abs=1e-8)


def test_drift_is_the_variance_of_the_cosines():
    alike, apart = torch.tensor([[1.0, 0], [2.0, 0]]), torch.tensor([[1.0, 0], [0, 5.0]])
    # The cosine of the two tokens is 1 in one picture and 0 in the other: variance 1/4 in two of four entries.
    assert gram_drift(torch.stack([alike, apart])) == pytest.approx(1000 * 0.25 * 2 / 4)


def test_lines_drift_where_a_key_moves_them():
    truth = face()[1]
    brighter = np.clip(truth * np.float32(1.1), 0, 1)
    assert line_drift([truth, truth]) == 0
    assert line_drift([truth, brighter]) < 0.1 < line_drift([truth, np.roll(truth, 12, axis=1)])


# --- the judge -----------------------------------------------------------------------------------------------------


def test_tags_agree_by_f1():
    one, two = frozenset({"hat", "belt", "skirt"}), frozenset({"hat"})
    assert tag_f1(one, two) == 0.5
    assert tag_f1(one, one) == tag_f1(frozenset(), frozenset()) == 1
    assert tag_f1(one, frozenset()) == 0


def test_tags_of_color_are_told_from_tags_of_shape_by_their_words():
    tags = ("red hair", "long hair", "blue_eyes", "redraw", "shaded", "front view")
    assert color_tags(tags) == {"red hair", "blue_eyes"}
    assert shape_tags(tags) == {"long hair", "redraw", "front view"}


def test_parts_are_compared_by_color_where_both_pictures_show_them():
    white, black = np.ones(3, np.float32), np.zeros(3, np.float32)
    assert part_color_distance({1: white, 2: white}, {1: white, 3: black}) == 0
    # White and black are 100 apart.
    assert part_color_distance({1: white, 2: white}, {1: white, 2: black}) == pytest.approx(50)
    assert part_color_distance({1: white}, {2: white}) is None


def test_a_background_is_compared_without_its_character(judge):
    rows = np.linspace(0, 1, 128, dtype=np.float32)
    picture = np.stack([np.tile(rows, (128, 1)), np.tile(rows[:, None], (1, 128)), gray(0.3, (128, 128))[..., 0]], -1)
    mask = np.zeros((128, 128), np.float32)
    mask[40:90, 40:80] = 1
    other = picture.copy()
    other[mask > 0] = (1, 0, 0)
    assert background_similarity(judge, picture, mask, picture, mask) == pytest.approx(1)
    assert background_similarity(judge, other, mask, picture, mask) == pytest.approx(1)
    assert background_similarity(judge, 1 - picture, mask, picture, mask) < 0.999
    assert background_similarity(judge, picture, mask, gray(1.0, (128, 128)), mask) is None  # nothing is painted there
    soft = gray(1.0, (128, 128))
    soft[38:92, 38:82] = 0.7  # the edge of a character laid over white paper
    assert background_similarity(judge, picture, mask, soft, mask) is None
    assert background_similarity(judge, picture, np.ones_like(mask), picture, mask) is None


def test_the_judge_reads_the_parts_of_a_drawing(judge):
    truth = face()[1]
    tokens = judge.tokens(truth)
    assert tokens.shape[0] == 256
    assert all(color.shape == (3,) for color in judge.part_colors(truth, tokens).values())
    assert judge.embedding(truth).dim() == 1


def test_a_judge_without_a_tower_says_which(judge, tmp_path):
    from dataclasses import replace

    blind = replace(judge, tagger=None, name="blind")
    with pytest.raises(WeightsError, match="the judge blind has no tagger"):
        blind.tokens(gray(0))
    with pytest.raises(WeightsError, match="has no tagger to take features from"):
        tagger_features(blind)
    with pytest.raises(WeightsError):
        load_judge(str(tmp_path))


# --- feature networks ----------------------------------------------------------------------------------------------


def test_pictures_are_shrunk_without_aliasing_and_without_rounding():
    stripes = gray(0.0, (256, 256))
    stripes[:, ::2] = 1
    small = clean_square(stripes, 37)
    assert small.shape == (37, 37, 3)
    assert abs(small[4:-4, 4:-4] - 127.5).max() < 3       # taking every seventh pixel would give black and white
    assert (small != np.rint(small)).any()
    assert (clean_square(gray(0.2), 64) == 51).all()


def mean_color(path: Path, *more: onnx.NodeProto, side: int | None = None) -> Path:
    """A network whose features are the means of the channels."""
    shape = (1, 3, side or "height", side or "width")
    mean = node("ReduceMean", "picture", "mean", axes=[2, 3], keepdims=0 if more else 1)
    return save(path, [mean, *more], inputs={"picture": shape}, outputs=("features" if more else "mean",))


@pytest.fixture(scope="session")
def linear(tmp_path_factory):
    return mean_color(tmp_path_factory.mktemp("features") / "linear.onnx")


def test_a_network_sees_the_values_that_it_is_said_to_want(linear):
    levels = open_features(linear, 32, "0..255").features(gray(0.6))
    assert levels.tolist() == pytest.approx([153] * 3)
    assert open_features(linear, 32, "-1..1").features(gray(0.6)).tolist() == pytest.approx([0.2] * 3, abs=1e-5)
    white = open_features(linear, 32, "imagenet").features(gray(1.0))
    assert white.tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-3)
    network = open_features(linear, 32, "0..1")
    assert network.side == 32
    assert network.name == f"linear.onnx {network.sha256[:8]}"


def test_fid_by_a_linear_network_is_the_closed_form_on_pictures(linear):
    network = open_features(linear, 16, "0..255")
    levels = RNG.integers(40, 200, size=(12, 3))
    pictures = [np.broadcast_to(color / 255, (20, 20, 3)).astype(np.float32) for color in levels]
    real = torch.stack([network.features(picture) for picture in pictures])
    made = torch.stack([network.features(picture + np.float32(10 / 255)) for picture in pictures])
    # Only the mean differs, by 10 levels in each of three channels.
    assert set_distance(real, made).fid == pytest.approx(300, rel=1e-3)


def test_an_onnx_network_is_read_at_its_own_size(tmp_path):
    network = open_features(mean_color(tmp_path / "mean.onnx", side=24), values="0..1")
    assert network.side == 24
    assert network.features(gray(0.4)).tolist() == pytest.approx([0.4] * 3)


def test_a_transformers_folder_tells_its_size_and_values(tmp_path):
    torch.manual_seed(0)
    model = CLIPVisionModel(CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                             num_attention_heads=2, image_size=28, patch_size=14))
    model.save_pretrained(tmp_path / "clip")
    with pytest.raises(UsageError, match="does not say what its pixels are"):
        open_features(tmp_path / "clip")
    (tmp_path / "clip" / "preprocessor_config.json").write_text(
        '{"crop_size": {"height": 28, "width": 28}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    network = open_features(tmp_path / "clip" / "model.safetensors")
    assert (network.side, network.values) == (28, "its own")
    with torch.no_grad():
        expected = model.eval()(pixel_values=torch.full((1, 3, 28, 28), 0.2)).pooler_output[0]
    assert torch.allclose(network.features(gray(0.6)), expected, atol=1e-5)


def test_the_tagger_of_the_judge_gives_features_under_its_own_name(judge):
    network = tagger_features(judge)
    assert network.name == "mini tagger features"
    truth = cv2.resize(face()[1], (256, 256), interpolation=cv2.INTER_AREA)
    truth = np.rint(truth * 255).astype(np.float32) / 255
    assert torch.allclose(network.features(truth), judge.tokens(truth).mean(0), atol=1e-3)


def test_a_feature_network_that_cannot_be_used_says_why(tmp_path, linear):
    with pytest.raises(WeightsError, match="there is no feature network"):
        open_features(tmp_path / "nowhere.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(WeightsError, match=r"text\.onnx"):
        open_features(tmp_path / "text.onnx", values="0..1")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="weights alone"):
        open_features(tmp_path / "model.safetensors")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "checkpoint.pt")
    torch.jit.script(torch.nn.Flatten()).save(str(tmp_path / "network.ts"))
    for name in ("checkpoint.pt", "network.ts"):   # they hold pickles, and code
        with pytest.raises(WeightsError, match="no feature network that can be read"):
            open_features(tmp_path / name, 16, "0..1")
    with pytest.raises(UsageError, match=r"--feature-values -2\.\.1 is nothing that pixels can be"):
        open_features(linear, 16, "-2..1")
    with pytest.raises(UsageError, match=r"linear\.onnx does not say what its pixels are"):
        open_features(linear)


def test_features_that_are_no_numbers_are_refused(tmp_path):
    no_number = node("Div", "nothing nothing", "nan"), node("Add", "mean nan", "features")
    nothing = node("Sub", "mean mean", "nothing")
    broken = mean_color(tmp_path / "broken.onnx", nothing, *no_number)
    with pytest.raises(WeightsError, match="NaN"):
        open_features(broken, 16, "0..1").features(gray(0.5))


# --- the table -----------------------------------------------------------------------------------------------------


def test_metrics_are_chosen_by_words():
    assert metrics_named(None) == ("regions", "flicker", "seconds")
    assert metrics_named("FID, psnr") == ("psnr", "fid")
    assert metrics_named("default,lines") == ("regions", "flicker", "seconds", "lines")
    assert metrics_named("all") == tuple(METRICS)
    with pytest.raises(UsageError, match="--metrics psnrr is no metric"):
        metrics_named("psnrr")


def test_every_column_has_a_direction_and_a_definition():
    assert [column.key for column in columns_of(METRICS)] == list(COLUMNS)
    assert all(len(column.definition) > 20 for column in COLUMNS.values())


def test_fid_is_never_called_fid_alone():
    assert column_of("fid (mini tagger features)").title == "FID (mini tagger features)"
    assert column_of("fid (mini tagger features)").better == "lower"
