"""Fine-tuning on one show: low-rank changes of the attention, learned from its model sheets, written as one small file.

peft lays them into the networks for training; the file goes into a preset (`lora:`), where the same changes are added
to the weights. Hu et al. 2021, arXiv:2106.09685.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from colorcli.errors import MissingExtraError
from colorcli.model.build import Components
from colorcli.model.match import MIRRORED
from colorcli.train.data.batch import Losses
from colorcli.train.data.batches import SHAKE, pair_batch
from colorcli.train.data.sheets import SheetBatch, SheetSet
from colorcli.train.objectives.mini import BACKGROUND_WEIGHT, color_losses
from colorcli.train.objectives.noise import chance, offset_noise
from colorcli.train.recipe import StageSection
from colorcli.train.sections import LoraSection
from colorcli.train.turn import Turn

NAME = "lora"            # under which the learning layers stand beside the model
ADAPTER = "default"      # peft's name of the change
REFERENCE_DROPOUT = 0.1  # share of samples that see no reference, so that guidance goes on working

# What of a network is changed: the last parts of the names of its linear layers.
_QKVO = ("to_q", "to_k", "to_v", "to_out.0")
LAYERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "self": ("unet", tuple(f"attn1.{name}" for name in _QKVO)),
    "cross": ("unet", tuple(f"attn2.{name}" for name in _QKVO)),
    "matcher": ("matcher", ("frame_in", "key_in", "asks", "answers")),
    "projection": ("projection", ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out", "proj.0", "proj.2")),
}


def layers_of(section: LoraSection, components: Components) -> tuple[str, ...]:
    """Name what is changed; unless a recipe says so, what decides on the colors of the model: see `LAYERS`."""
    return section.layers or (("matcher",) if components.matcher is not None else ("self", "cross"))


class LearningLayers(nn.Module):
    """The halves of all changes, which are parts of the networks, gathered as what a stage trains.

    layers: "unet.<layer>" or "projection.<layer>" -> peft's layer.
    """

    def __init__(self, layers: Mapping[str, Any]) -> None:
        super().__init__()
        self.halves = nn.ModuleDict({
            # A name with dots is none that a module may have.
            name.replace(".", "/"): nn.ModuleDict({"down": layer.lora_A[ADAPTER], "up": layer.lora_B[ADAPTER]})
            for name, layer in layers.items()
        })
        self.scales = {name: float(layer.scaling[ADAPTER]) for name, layer in layers.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Name all halves as diffusers does; the scale is multiplied into the upper ones, so no reader needs it."""
        found: dict[str, Tensor] = {}
        for name, scale in self.scales.items():
            down, up = (self.halves.get_parameter(f"{name.replace('.', '/')}.{half}.weight") for half in ("down", "up"))
            found |= {f"{name}.lora_A.weight": down.detach(), f"{name}.lora_B.weight": up.detach() * scale}
        return found


def lay_in(components: Components, section: LoraSection, seed: int) -> None:
    """Lay new changes into the networks, which change nothing yet, and gather them as `beside.lora`.

    Does nothing if they are there. Raises MissingExtraError without peft.
    """
    if NAME in components.beside:
        return
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer
    except ImportError as error:
        raise MissingExtraError("the stage lora needs the package peft, which is not installed",
                                hint="pip install 'colorcli[train]'") from error
    networks: dict[str, list[str]] = {}
    for chosen in layers_of(section, components):
        network, names = LAYERS[chosen]
        networks.setdefault(network, []).extend(names)
    layers: dict[str, Any] = {}
    torch.manual_seed(seed)   # peft draws the lower halves
    for network, endings in networks.items():
        module = getattr(components, network)
        if module is None:
            continue   # only mini matches regions, and v2 reads a key by CLIP's tokens as they are
        ends = tuple(f".{name}" for name in endings)
        targets = [
            name for name, layer in module.named_modules()
            if isinstance(layer, nn.Linear) and f".{name}".endswith(ends)
        ]
        config = LoraConfig(r=section.rank, lora_alpha=section.alpha or section.rank, target_modules=targets,
                            lora_dropout=section.dropout, bias="none")
        inject_adapter_in_model(config, module, ADAPTER)
        layers |= {f"{network}.{name}": layer for name, layer in module.named_modules() if isinstance(layer, LoraLayer)}
    components.beside[NAME] = LearningLayers(layers)


def make_sheet_batch(data: SheetSet, turn: Turn, size: int, options: StageSection) -> SheetBatch:
    """Choose pictures of one canvas, each with another picture of its character."""
    return data.batch(turn, size)


def lora_losses(components: Components, batch: SheetBatch, turn: Turn, options: StageSection) -> Losses:
    """The error of colors in noise, where the denoising network or the projection learns, and that of the matcher.

    Of the matcher it is the cross-entropy of the right palette color of each region. Its readings are mirrored and
    shaken at random, but not given other colors as in its own training: a show's colors are what is to be learned.
    """
    layers = layers_of(options.lora, components)
    losses: Losses = {}
    if set(layers) - {"matcher"}:
        losses = noise_losses(components, batch, turn, options)
    if "matcher" in layers and batch.pairs:
        assert components.matcher is not None
        found = color_losses(components.matcher, batch.pairs, _shaken(pair_batch(batch.pairs, None), turn))
        losses = {**losses, "loss": losses["loss"] + found["loss"] if losses else found["loss"],
                  "match": found["loss"].detach(), "accuracy": found["accuracy"]}
    return losses


def _shaken(shown: tuple[Tensor, ...], turn: Turn) -> tuple[Tensor, ...]:
    """Mirror half of the frames and half of the keys of some pairs, and lay noise over what was read of them."""
    rng, generator = turn.rng, turn.generator
    tokens = []
    for read in shown[:2]:
        read = read + SHAKE * torch.randn(read.shape, generator=generator).to(read)
        mirrored = torch.from_numpy(rng.random(len(read)) < 0.5).to(read.device)
        sign = torch.ones(read.shape[-1], device=read.device)
        sign[list(MIRRORED)] = -1
        tokens.append(torch.where(mirrored[:, None, None], read * sign, read))
    return (*tokens, *shown[2:])


def noise_losses(components: Components, batch: SheetBatch, turn: Turn, options: StageSection) -> Losses:
    """The error of the clean latents that the network sees in noised ones, the character weighted over the background.

    From noised true latents at all times it is the loss of the model's own training. A model that begins from a color
    match also learns, at the times it then runs, to go from there to the true colors, whatever the match got wrong.
    """
    generator, device = turn.generator, batch.latents.device
    rows, alphas_cumprod = len(batch.latents), components.alphas_cumprod
    last = len(alphas_cumprod) - 1
    matched = batch.matched & chance(options.lora.matched, rows, generator, device)
    draws = torch.rand(rows, generator=generator).to(device)
    # A run from a match begins at the given level, and one step of few stands in its upper half.
    times = torch.where(matched, batch.level * (0.5 + 0.5 * draws), draws)
    steps = (times * last).round().long().clamp(0, last)
    alphas = alphas_cumprod[steps][:, None, None, None]
    clean = batch.latents
    begun = torch.where(matched[:, None, None, None], batch.start, clean)
    noised = alphas.sqrt() * begun + (1 - alphas).sqrt() * offset_noise(
        clean, generator, options.diffusion.offset_noise)
    context = batch.key[0] if len(batch.key) == 1 else components.projection(*batch.key)  # type: ignore[misc]
    seen = ~chance(REFERENCE_DROPOUT, rows, generator, device)
    predicted = components.unet(
        noised, steps.float(), batch.y, context * seen[:, None, None], batch.maps
    ).float()
    if components.scheduler.config["prediction_type"] == "epsilon":
        target = (noised - alphas.sqrt() * clean) / (1 - alphas).sqrt()
    else:
        target = (alphas.sqrt() * noised - clean) / (1 - alphas).sqrt()
    share = BACKGROUND_WEIGHT + (1 - BACKGROUND_WEIGHT) * batch.mask
    errors = ((predicted - target).square() * share).sum((1, 2, 3)) / (share.sum((1, 2, 3)) * clean.shape[1])
    told = {"diffusion": errors[~matched], "from_match": errors[matched]}
    return {"loss": errors.mean(), **{name: some.mean().detach() for name, some in told.items() if len(some)}}
