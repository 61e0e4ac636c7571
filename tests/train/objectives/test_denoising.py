import math

import pytest
import torch
from torch import Tensor, nn

from colorcli.model.attention import Region, region_at
from colorcli.model.build import Components
from colorcli.model.unet import PLAIN, Sightings, denoise, features_of
from colorcli.train.data.batch import PictureBatch
from colorcli.train.objectives.bleaching import Thresholds, merged_masks, with_holes
from colorcli.train.objectives.denoising import (
    Noised,
    add_noise,
    denoising_losses,
    diffusion_loss,
    dropped_maps,
    min_snr_weights,
    recompute,
)
from colorcli.train.objectives.noise import offset_noise
from colorcli.train.objectives.published import (
    PUBLISHED,
    Chances,
    Draws,
    chances_of,
    original_size_vector,
    picture_vector,
    xl_base_inputs,
    xl_encoders,
)
from colorcli.train.recipe import StageSection
from colorcli.train.run.grow import begun_from, sizes_of, wrapped
from colorcli.train.sections import DiffusionSection, DropSection, GramSection
from colorcli.train.stages import STAGES, trained_modules
from colorcli.train.turn import Turn
from tests import tiny_mini, tiny_xl
from tests.train import tiny_data

CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def options(**more) -> StageSection:
    return StageSection(name="xl-base", steps=10, batch=3, rate=1e-4, **more)


@pytest.fixture(scope="module")
def xl() -> Components:
    return Components(**tiny_xl.components())


@pytest.fixture(scope="module")
def batch() -> PictureBatch:
    return tiny_data.Pictures().batch(Turn(0, "xl-base", 0), 3)


# --- noise ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_what_is_predicted_leads_back_to_the_clean_latents(prediction):
    clean, noise = (torch.randn(2, 4, 3, 5, generator=seeded(i)) for i in (1, 2))
    alphas = torch.tensor([0.9, 0.3])
    noised = add_noise(clean, noise, torch.tensor([1, 0]), alphas, prediction)
    a = torch.tensor([0.3, 0.9]).view(2, 1, 1, 1)
    if prediction == "v":
        found = a.sqrt() * noised.latents - (1 - a).sqrt() * noised.target
    else:
        found = (noised.latents - (1 - a).sqrt() * noised.target) / a.sqrt()
    assert torch.allclose(found, clean, atol=1e-5)


def test_offset_noise_is_one_more_draw_for_a_whole_channel():
    plain, offset = (offset_noise(torch.zeros(2, 4, 16, 16), seeded(), deviation) for deviation in (0.0, 0.5))
    added = offset - plain
    assert torch.allclose(added, added[..., :1, :1].expand_as(added), atol=1e-6)
    assert added[..., 0, 0].unique().numel() == 8
    many = offset_noise(torch.zeros(400, 50, 1, 1), seeded(), 0.05)
    assert float(many.var()) == pytest.approx(1 + 0.05**2, rel=0.03)


def noised(alphas: list[float], target: float = 0.0) -> Noised:
    rows = len(alphas)
    return Noised(
        torch.zeros(rows, 1, 2, 2), torch.full((rows, 1, 2, 2), target), torch.zeros(rows, dtype=torch.long),
        torch.tensor(alphas).view(rows, 1, 1, 1),
    )


def test_min_snr_caps_what_little_noise_counts():
    # Signal to noise 9, 1 and 1/9; one more for v.
    alphas = torch.tensor([0.9, 0.5, 0.1])
    assert min_snr_weights(alphas, 5, "epsilon").tolist() == pytest.approx([5 / 9, 1, 1])
    assert min_snr_weights(alphas, 5, "v").tolist() == pytest.approx([5 / 10, 1, 1])
    assert min_snr_weights(torch.tensor([0.0]), 5, "epsilon").isfinite().all()   # pure noise
    errors = torch.tensor([2.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    loss = diffusion_loss(errors, noised([0.9, 0.5]), DiffusionSection(min_snr=5), "v")
    assert loss.item() == pytest.approx((0.5 * 4 + 1) / 2)
    assert diffusion_loss(errors, noised([0.9, 0.5]), DiffusionSection()).item() == pytest.approx(2.5)


def test_only_the_character_counts_in_a_masked_loss():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    errors = torch.tensor([[[[3.0, 7.0], [3.0, 7.0]]]])
    loss = diffusion_loss(errors, noised([0.5]), DiffusionSection(masked=True), mask=mask)
    assert loss.item() == pytest.approx(9 / 2)


def test_the_error_is_counted_in_float32():
    small = torch.full((1, 1, 2, 2), 1e-4, dtype=torch.float16)   # its square is no float16
    assert diffusion_loss(small, noised([0.5]), DiffusionSection()).item() == pytest.approx(1e-8, rel=1e-3)


# --- drops ---------------------------------------------------------------------------------------------------------


class Watched(nn.Module):
    """A denoising network that writes down what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.context, self.times = torch.zeros(0), torch.zeros(0)

    def forward(self, latents, times, y, context, maps, plan, observe):
        self.context, self.times = context, times
        return latents * self.weight


def watched_drops(rate: float, late: float) -> tuple[Tensor, Tensor]:
    """Denoise many samples; gives who saw a reference, and the times."""
    unet, scheduler = Watched(), Components(**tiny_xl.components()).scheduler
    parts = Components(nn.Identity(), nn.Identity(), nn.Identity(), unet, scheduler)
    from colorcli.train.objectives.denoising import Reading

    read = Reading(torch.ones(4000, 1, 2), (), None)
    stage = options(drop=DropSection(reference_late=late))
    denoising_losses(parts, torch.zeros(4000, 1, 1, 1), read, Turn(0, "xl-base", 0), seeded(), stage, rate)
    assert torch.equal(unet.context[:, 0, 0], unet.context[:, 0, 1])
    return unet.context[:, 0, 0] == 1, unet.times


def test_a_share_of_samples_sees_no_reference():
    seen, times = watched_drops(0.2, 0.0)
    assert float(seen.float().mean()) == pytest.approx(0.8, abs=0.03)
    assert times.min() >= 0 and times.max() <= 999 and float(times.mean()) == pytest.approx(499.5, abs=20)


def test_the_dropout_of_references_may_depend_on_the_time():
    seen, times = watched_drops(0.2, 0.6)
    for low, high in ((0, 250), (750, 1000)):
        there = (times >= low) & (times < high)
        expected = 0.8 - 0.6 * (low + high) / 2 / 999
        assert float(seen[there].float().mean()) == pytest.approx(expected, abs=0.06)


def test_each_sketch_map_of_each_sample_is_dropped_by_itself():
    chances = Chances(reference=0.2, sketch=0.1)
    draws = Draws.drawn(seeded(), 5000, 4, chances, CPU)
    kept = torch.stack([keep.float() for keep in draws.sketch_keep])
    assert kept.mean(1).tolist() == pytest.approx([0.9] * 4, abs=0.02)
    assert torch.corrcoef(kept).fill_diagonal_(0).abs().max() < 0.05
    maps = [torch.ones(3, 2, 4, 4), torch.ones(3, 5, 2, 2)]
    found = dropped_maps(maps, [torch.tensor([1, 0, 1]), torch.tensor([0, 0, 1])])
    assert [level.mean((1, 2, 3)).tolist() for level in found] == [[1, 0, 1], [0, 0, 1]]


def test_holes_have_the_shape_of_the_fourth_sample_before():
    masks = torch.zeros(5, 1, 2, 5)
    for row in range(5):
        masks[row, 0, 0, row] = 0.6   # each has a column of its own
    reference = torch.full((5, 3, 2, 5), -0.5)
    thresholds = Thresholds(torch.zeros(5), torch.tensor([0.5, 0.5, 0.7, 0.5, 0.5]))
    holes = with_holes(reference, masks, thresholds, torch.tensor([True, False, True, True, True])) == 1
    # Samples 0 to 4 have the shapes of 1, 2, 3, 4 and 0; the mask of 2 is below its threshold, and 1 is not chosen.
    assert [row[0, 0].nonzero().flatten().tolist() for row in holes] == [[1], [], [], [4], [0]]
    assert not holes[:, :, 1].any()


def test_masks_are_merged_with_the_second_sample_before():
    masks = torch.tensor([0.2, 0.5, 0.9, 0.0]).view(4, 1, 1, 1)
    assert merged_masks(masks).flatten().tolist() == pytest.approx([1.0, 0.5, 1.0, 0.5])


def test_thresholds_run_between_their_limits():
    found = Thresholds.of(torch.tensor([0.0, 1.0, 0.5, 0.25]), 0.01, 0.99)
    assert found.sketch.tolist() == pytest.approx([0.01, 0.99])
    assert found.reference.tolist() == pytest.approx([0.5, 0.255])


def test_a_recipe_may_say_other_chances_than_the_published_ones():
    assert chances_of("xl-base", options()) == PUBLISHED["xl-base"]
    assert chances_of("xl-base", options(gram=GramSection(weight=1.0))).lowest == 0.05
    assert chances_of("xl-base", options(drop=DropSection(hole=0.0))).hole == 0.0
    assert chances_of("v2-style", options(drop=DropSection(background_path=0.3))).background == 0.3


def test_each_sample_has_a_region_of_its_own_threshold():
    mask = torch.tensor([0.4, 0.4]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    layer = region_at(Region(mask, torch.tensor([0.3, 0.5])), 2, 2)
    assert layer.context.inside.all(1).tolist() == [True, False]
    assert layer.context.inside.any(1).tolist() == [True, False]


# --- what is told beside the pictures ------------------------------------------------------------------------------


def test_the_picture_vector_holds_the_seen_side_in_pixels_of_the_original(batch):
    # Half of the original's size: 64 x 96 of the canvas are 128 x 192 of it.
    known = PictureBatch(**{**vars(batch), "size": torch.tensor([[128.0, 500.0, 64.0]] * 3)})
    y = picture_vector(known)
    side = math.sqrt(128 * 192)
    frequencies = torch.exp(-math.log(10000) * torch.arange(128) / 128)
    assert torch.allclose(y[0, :128], (side * frequencies).cos(), atol=1e-4)
    assert torch.allclose(y[0, 256:384], (6.0 * frequencies).cos(), atol=1e-4)
    sides = original_size_vector(known)
    assert torch.allclose(sides[0, 256:384], (500 / 768 * frequencies).cos(), atol=1e-5)


def test_frozen_encoders_take_no_gradient_but_the_projection_does(xl, batch):
    xl.freeze()
    for module in trained_modules(xl, "xl-base").values():
        module.requires_grad_(True)
    draws = Draws.drawn(seeded(), 3, 4, PUBLISHED["xl-base"], CPU)
    prepared = xl_base_inputs(xl_encoders(xl, seeded()), batch, draws)
    assert not prepared.latents.requires_grad and prepared.read.context.requires_grad
    first, second = (xl_base_inputs(xl_encoders(xl, seeded(i)), batch, draws).latents for i in (0, 1))
    assert not torch.equal(first, second)   # a sample of the autoencoder's distribution


# --- memory and the second branch ----------------------------------------------------------------------------------


def gradients(components: Components, batch: PictureBatch, stage: str, recomputed: bool) -> dict[str, Tensor]:
    components.freeze()
    modules = trained_modules(components, stage)
    for module in modules.values():
        module.requires_grad_(True)
    recompute(components, recomputed)
    section = StageSection(name=stage, steps=10, batch=3, rate=1e-4, gram=GramSection(weight=1.0, feature="cross"))
    STAGES[stage].losses(components, batch, Turn(0, stage, 0), section)["loss"].backward()
    found = {f"{path}.{name}": p.grad.clone() for path, module in modules.items()
             for name, p in module.named_parameters() if p.grad is not None}
    for module in modules.values():
        module.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("stage", ["xl-base", "xl-refine"])
def test_recomputed_activations_give_the_same_gradients(stage, batch):
    components = Components(**tiny_xl.components(adapter=True))
    plain, again = (gradients(components, batch, stage, recomputed) for recomputed in (False, True))
    assert plain.keys() == again.keys() and len(plain) > 50
    for name, gradient in plain.items():
        assert torch.allclose(gradient, again[name], rtol=1e-4, atol=1e-7), name


def test_recomputing_keeps_less(xl, batch):
    def kept(recomputed: bool) -> int:
        total = 0

        def count(x: Tensor) -> Tensor:
            nonlocal total
            total += x.numel()
            return x

        recompute(xl, recomputed)
        x, maps = torch.randn(2, 4, 16, 16), ()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            denoise(xl.unet.requires_grad_(True), x, 5.0, torch.zeros(2, 512), torch.randn(2, 8, tiny_xl.CONTEXT), maps)
        recompute(xl, False)
        return total

    assert kept(True) < 0.6 * kept(False)


def test_the_second_branch_stops_at_the_last_block_that_is_compared(xl):
    x, context = torch.randn(1, 4, 8, 8, generator=seeded()), torch.randn(1, 8, tiny_xl.CONTEXT, generator=seeded(1))
    y = torch.zeros(1, 512)
    whole = Sightings(["block.3", "self.13", "cross.13"])
    heard: list[str] = []

    def observe(name: str, features: Tensor) -> None:
        heard.append(name)
        whole(name, features)

    denoise(xl.unet, x, 7.0, y, context, (), PLAIN, observe)
    handle_calls: list[None] = []
    handle = xl.unet.conv_norm_out.register_forward_hook(lambda *_: handle_calls.append(None))
    found = features_of(xl.unet, x, 7.0, y, context, (), PLAIN, ["block.3", "self.13", "cross.13"])
    handle.remove()
    assert not handle_calls
    for name, features in zip(("block.3", "self.13", "cross.13"), found, strict=True):
        assert torch.equal(features, whole.all[name]), name
    assert [name for name in heard if name.endswith(".13")] == ["norm1.13", "self.13", "cross.13", "block.13"]


# --- networks that begin from others -------------------------------------------------------------------------------


def test_wrapped_weights_give_equal_inputs_what_they_gave():
    weights = torch.randn(3, 2, generator=seeded())
    wide = wrapped(weights, torch.Size([5, 4]))
    x = torch.randn(7, 2, generator=seeded(1))
    assert torch.allclose(torch.cat([x, x], 1) @ wide.T, (x @ weights.T)[:, [0, 1, 2, 0, 1]], atol=1e-6)
    odd = wrapped(weights, torch.Size([3, 3]))   # the first column is shared by two, the second is not
    assert torch.equal(odd, torch.stack([weights[:, 0] / 2, weights[:, 1], weights[:, 0] / 2], 1))
    assert torch.equal(wrapped(torch.tensor([1.0, 2.0]), torch.Size([3])), torch.tensor([1.0, 2.0, 1.0]))


@pytest.mark.parametrize("made", [lambda: tiny_mini.components().unet, lambda: tiny_xl.components()["unet"]])
def test_the_sizes_of_a_network_build_one_like_it(made):
    from colorcli.model.unet import build_unet

    unet = made()
    again = begun_from(unet, build_unet(**sizes_of(unet), y_dim=512))
    assert again.state_dict().keys() == unet.state_dict().keys()
    for name, value in unet.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
