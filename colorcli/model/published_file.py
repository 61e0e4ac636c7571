"""A published single file understood: the place of every tensor, and the networks that go with it.

All of it is checked before anything is read or written: each of our tensors has its own in the file with the shape it
must have, and each tensor of the file is used, or is known and left out for a reason.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler

from colorcli.errors import WeightsError
from colorcli.model.architecture import (
    OriginOf,
    Shapes,
    adapter_from,
    adapter_origin,
    projection_from,
    projection_origin,
    reference_net_from,
    same_name,
    sketch_encoder_from,
    sketch_encoder_origin,
    unet_from,
    unet_origin,
    vae_from,
    vae_origin,
)
from colorcli.model.architecture_v2 import LATENT_SCALE as V2_LATENT_SCALE
from colorcli.model.architecture_v2 import (
    background_encoder_from,
    pyramid_sketch_encoder_from,
    pyramid_sketch_encoder_origin,
    region_adapters_from,
    region_adapters_origin,
    side_encoder_origin,
    side_unet_from,
    side_unet_origin,
    style_encoder_from,
)
from colorcli.model.file_parts import DTYPES, Faults, Make, Part, make_part, shapes_of, under
from colorcli.model.single_file import KIND_IN_WORDS, Header, TensorEntry, family_of_file, header_at, read_header
from colorcli.model.tensor_files import read_tensor
from colorcli.model.towers import TOWER_PARTS, bare_name, find_tower, require_matching_towers
from colorcli.model.weights import TAGGER, TOWERS

# What the published models were trained with.
NOISE_SCHEDULE: Mapping[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "steps_offset": 1, "timestep_spacing": "leading", "clip_sample": False,
}
PREDICTIONS = {"v": "v_prediction", "eps": "epsilon"}
V2_SIDE = 768   # pixels of a side that v2 was trained on

UNET = "model.diffusion_model."

Prediction = Literal["v", "eps"]

# Tensors that are known and have no place in a model of ours, each kind with the reason. First match counts.
_SCHEDULE = (r"(betas|alphas_cumprod|alphas_cumprod_prev|(sqrt|log)_(one_minus_|recip_|recipm1_)?alphas_cumprod"
             r"|posterior_(variance|log_variance_clipped|mean_coef[12]))$")
_LEFT_OUT: Sequence[tuple[str, str]] = (
    (_SCHEDULE, "tables of the noise schedule, which are computed"),
    (r"model_ema\.", "moving averages of training"),
    (r"(scalar|txt)_embedder\.", "embedders without a place in a released model"),
)
_XL_LEFT_OUT: Sequence[tuple[str, str]] = (
    (r"model\.diffusion_model\.conv_fg\.", "an input for foregrounds that no released model uses"),
    (r"bg_encoder\.output_blocks\.(5\.2|6\.)", "ReferenceNet behind the last block that is read"),
)


@dataclass(frozen=True)
class PublishedFile:
    """A file understood."""

    family: str
    parts: Sequence[Part]
    links: Mapping[str, Path]                 # component -> folder of an installed model that already holds it
    towers: Mapping[str, str]                 # component -> where it comes from, for people
    used: int                                 # tensors of the file that are in the model
    ignored: Mapping[str, Sequence[str]]      # reason -> names of tensors that are not
    notes: Sequence[str] = ()                 # what a person may want to know
    tokenizer: Any = None                     # CLIP's, for the text encoder


def understand(
    file: Path, family: str, *, clip: Path | None = None, tagger: Path | None = None, vae: Path | None = None,
    tokenizer: Path | None = None,
) -> PublishedFile:
    """Find the place of every tensor; the networks that the file may lack are as for `import_model`.

    Raises WeightsError with all that does not fit.
    """
    if tagger is not None and TAGGER not in TOWERS[family]:
        raise WeightsError(f"{file.name} is {KIND_IN_WORDS['v2']}, which reads no tagger", hint="leave --tagger out")
    left_out = _LEFT_OUT if family == "v2" else (*_LEFT_OUT, *_XL_LEFT_OUT)
    header = read_header(file)
    ignored: dict[str, list[str]] = {}
    rest: dict[str, TensorEntry] = {}
    for name, entry in header.items():
        reason = next((reason for pattern, reason in left_out if re.match(pattern, name)), None)
        if reason is not None:
            ignored.setdefault(reason, []).append(name)
        else:
            rest[name] = entry
    notes = _family_notes(file, family)
    parts: list[Part] = []
    links: dict[str, Path] = {}
    lenders, words = {}, None
    for tower in TOWERS[family]:
        given = tagger if tower is TAGGER else clip
        inside = {name: rest.pop(name) for name in list(rest) if name.startswith(tower.prefix)}
        if given is not None and inside:
            ignored.setdefault(f"the {tower.folder} comes from {given}", []).extend(inside)
        found = find_tower(tower, given, inside, file, tokenizer)
        notes += found.notes
        words = found.tokenizer or words
        for part in found.parts:
            parts.append(part)
            lenders[part.folder] = found.origin
        links.update(found.links)
        if given is None and inside:
            back = {bare_name(tower, name): name for name in inside}
            for reason, names in found.left.items():
                ignored.setdefault(reason, []).extend(back.get(name, name) for name in names)
    parts += _networks_v2(rest, vae) if family == "v2" else _networks(rest, family, vae)
    if vae is not None:
        lenders["vae"] = str(vae)
    problems = _problems(parts, rest, vae is not None)
    if problems:
        raise WeightsError(f"{file.name} does not fit {family}: {'; '.join(problems)}",
                           hint="download it again, or see in its name and description which model it is")
    require_matching_towers(parts)
    outside = sum(len(names) for names in ignored.values())
    return PublishedFile(family, parts, links, lenders, len(header) - outside, ignored, notes, words)


def _family_notes(file: Path, family: str) -> list[str]:
    """Say where a file's name promises another family than its content."""
    prefixes = {"sdxl": "xl", "xlv2": "xlv2", "v2": "v2"}
    promised = next((kind for prefix, kind in prefixes.items() if file.name.lower().startswith(prefix)), None)
    if promised is None or promised == family:
        return []
    return [f"the name of {file.name} says {promised}, what is in it is {family}"]


def _networks(rest: Header, family: str, vae: Path | None) -> list[Part]:
    """Describe the networks of an xl file that were trained together; each takes its tensors by prefix."""
    plain, lora = _without_adapter(rest)

    def part(folder: str, kind: tuple[str, str], prefix: str, make: Make, origin: OriginOf) -> Part:
        own = under(plain, prefix)
        return make_part(folder, kind, make(shapes_of(own)), origin, own, prefix)

    found = [
        _vae(plain, vae, vae_from),
        part("sketch_encoder", ("colorcli.model.sketch_encoder", "SketchEncoder"), "control_encoder.",
             sketch_encoder_from, sketch_encoder_origin),
        part("projection", ("colorcli.model.reference", "ClusterProjection"), "proj.", projection_from,
             projection_origin),
        part("unet", ("colorcli.model.unet", "ColorUNet"), UNET, unet_from, unet_origin),
    ]
    if family == "xlv2":
        network = found[-1].network
        found += [
            part("reference_net", ("colorcli.model.reference_net", "ReferenceNet"), "bg_encoder.", reference_net_from,
                 unet_origin),
            make_part("adapter", ("colorcli.model.lora", "BackgroundAdapter"), adapter_from(network),
                  adapter_origin(network), lora, UNET),
        ]
    return found


def _networks_v2(rest: Header, vae: Path | None) -> list[Part]:
    """Describe the networks of a v2 file that were trained together."""
    plain, lora = _without_adapter(rest)
    side, sketch = "colorcli.model.side_encoders", "colorcli.model.sketch_encoder"

    def part(folder: str, kind: tuple[str, str], prefix: str, make: Make, origin: OriginOf) -> Part:
        own = under(plain, prefix)
        try:
            network = make(shapes_of(own))
        except (ArithmeticError, ValueError, TypeError, IndexError, KeyError) as failure:
            raise WeightsError(f"no {folder} of v2 has the sizes of {prefix}*: {failure}",
                               hint="download the file again, or see in its description which model it is") from None
        return make_part(folder, kind, network, origin, own, prefix)

    unet = part("unet", (side, "SideUNet"), UNET, side_unet_from, side_unet_origin)
    return [
        _vae(plain, vae, lambda shapes: vae_from(shapes, V2_LATENT_SCALE, V2_SIDE)),
        part("sketch_encoder", (sketch, "PyramidSketchEncoder"), "control_encoder.", pyramid_sketch_encoder_from,
             pyramid_sketch_encoder_origin),
        unet,
        part("background_encoder", (side, "BackgroundEncoder"), "bg_encoder.", background_encoder_from,
             side_encoder_origin),
        part("style_encoder", (side, "StyleEncoder"), "style_encoder.", style_encoder_from, side_encoder_origin),
        make_part("adapter", ("colorcli.model.lora", "RegionAdapters"), region_adapters_from(unet.network),
                  region_adapters_origin(unet.network), lora, UNET),
    ]


def _vae(rest: Header, given: Path | None, make: Make) -> Part:
    """Describe the autoencoder, in the file or given by itself."""
    prefix = "first_stage_model."
    own = under(rest, prefix) if given is None else _vae_header(given)
    by_diffusers = given is not None and "decoder.conv_norm_out.weight" in own
    shapes = _ldm_shapes(shapes_of(own)) if by_diffusers else shapes_of(own)
    origin = same_name if by_diffusers else vae_origin
    return make_part("vae", ("diffusers", "AutoencoderKL"), make(shapes), origin, own, prefix)


def _without_adapter(rest: Header) -> tuple[dict[str, TensorEntry], dict[str, TensorEntry]]:
    """Part the low-rank changes from all else; they are among the tensors of the denoising network."""
    lora = {name.removeprefix(UNET): entry for name, entry in rest.items() if ".lora_" in name}
    return {name: entry for name, entry in rest.items() if ".lora_" not in name}, lora


def _vae_header(path: Path) -> Header:
    """List the tensors of an autoencoder given by its own file or folder, by the names of LDM or of diffusers."""
    header = header_at(path / "vae" if (path / "vae").is_dir() else path)
    return under(header, "first_stage_model.") or header


def _ldm_shapes(shapes: Shapes) -> Shapes:
    return {vae_origin(name).name: shape for name, shape in shapes.items()}


def _problems(parts: Sequence[Part], rest: Header, other_vae: bool) -> list[str]:
    """Say in words all that does not fit of the networks in the main file; the towers were checked by themselves."""
    faults, used = Faults(), set()
    for part in parts:
        if part.folder not in TOWER_PARTS:
            faults.check(part)
            used |= {part.prefix + origin.name for origin in part.origins.values()}
    faults.unknown += [name for name in rest
                       if name not in used and not (other_vae and name.startswith("first_stage_model."))]
    texts = faults.in_words()
    if not next(part for part in parts if part.folder == "vae").entries:
        texts.append("it has no autoencoder at all (--vae FILE gives one)")
    return texts


def prediction_of(file: Path) -> Prediction:
    """Tell by a file's name what its network was trained to predict: nothing in it does."""
    return "eps" if "eps" in file.name.lower() else "v"


def published_scheduler(prediction: Prediction) -> DDIMScheduler:
    """Make the scheduler that a model was published with."""
    return DDIMScheduler(**NOISE_SCHEDULE, prediction_type=PREDICTIONS[prediction])


def read_published(
    file: Path,
    *,
    towers: Path | None = None,
    dtype: torch.dtype | Mapping[str, torch.dtype] | None = None,
    prediction: Prediction | None = None,
) -> dict[str, Any]:
    """Read a published file into the components of a pipeline, with nothing written.

    towers: folder of an installed model, or of any with the towers of the family inside; needed where the file has none
    (see `weights.towers_for`). dtype: of all networks, or of each by its name with "default" for the others; None
    keeps that of the file. prediction: None takes `prediction_of`.
    Raises WeightsError like `import_model`.
    """
    family = family_of_file(file)
    plan = understand(file, family, clip=towers, tagger=towers if TAGGER in TOWERS[family] else None)
    names = {value: name for name, value in DTYPES.items()}
    components: dict[str, Any] = {}
    for part in plan.parts:
        wanted = dtype.get(part.folder, dtype.get("default")) if isinstance(dtype, Mapping) else dtype
        found = {ours: read_tensor(part, ours, names[wanted] if wanted else None) for ours in part.origins}
        part.network.load_state_dict(found, assign=True)
        # Tables that are computed, not read, take part in the same sums.
        widest = max({value.dtype for value in found.values()}, key=lambda kind: (kind.itemsize, str(kind)))
        components[part.folder] = part.network.to(widest).eval().requires_grad_(False)
    components["scheduler"] = published_scheduler(prediction or prediction_of(file))
    if plan.tokenizer is not None:
        components["tokenizer"] = plan.tokenizer
    return components
