"""`ColorizePipeline`: from a key and line art to color layers, as a diffusers pipeline."""

import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

from colorcli.errors import PresetError
from colorcli.images import FORMATS, Picture, over_paper, read_picture
from colorcli.model.attention import Adapter, RegionAdapter
from colorcli.model.autoencoder import MeanColorAutoencoder, latents_of
from colorcli.model.compiled import Regions
from colorcli.model.condition_settings import condition_settings
from colorcli.model.conditions import Conditions, ConditionSettings, Encoders, KeyPictures, KeyTokens
from colorcli.model.conditions_v2 import SideEncoders, SideSettings
from colorcli.model.decoding import CheckedDecoding
from colorcli.model.evidence import Evidence
from colorcli.model.lora import BackgroundAdapter, RegionAdapters
from colorcli.model.lora_file import NETWORKS, open_lora
from colorcli.model.lora_merge import Lora, changed_networks
from colorcli.model.machine import out_of_memory, too_large
from colorcli.model.match import (
    KeyMap,
    Match,
    Painted,
    PartMap,
    can_match,
    join_key_maps,
    key_map,
    match_frame,
    paint,
    part_map,
    unpainted,
)
from colorcli.model.matcher import RegionMatcher
from colorcli.model.memory import (
    SIZES,
    MemoryProfile,
    Phase,
    activations,
    apply_precision,
    arrange,
    decodes_in_bf16,
)
from colorcli.model.onnx_networks import open_networks
from colorcli.model.openvino_export import check_engine_settings
from colorcli.model.openvino_networks import OpenVinoNetworks
from colorcli.model.parts import FeaturePartHead, MapPartHead, TokenPartHead
from colorcli.model.preprocess import (
    clip_pixels,
    mask_tensor,
    picture_tensor,
    sketch_tensor,
    stretch,
    tagger_pixels,
    to_8bit,
)
from colorcli.model.reading import PartReader
from colorcli.model.reference import ClusterProjection, TaggerTower, clip_tokens
from colorcli.model.reference_net import ReferenceNet
from colorcli.model.residency import Residency, free_caches
from colorcli.model.side_encoders import BackgroundEncoder, StyleEncoder, project_hints
from colorcli.model.sketch_encoder import PyramidSketchEncoder, SketchEncoder
from colorcli.model.text_manipulation import TextEdit, WordEdit, similarity_pictures
from colorcli.model.unet import ColorUNet, Context, project_bank, project_context
from colorcli.model.vae_tiles import decode_in_strips, encode_in_strips
from colorcli.model.votes import Links, counted, link
from colorcli.model.weights import weights_folder
from colorcli.model.words import WordReader, read_tokenizer
from colorcli.prepare.canvas import from_canvas
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import PreparedKey, prepare_key
from colorcli.presets import LoraSettings, Preset, check_for_variant, default_preset
from colorcli.sampling import RANGE_SAMPLERS, Blend, Guidance, ReferenceOnly, frame_noise, guided, levels_of, sample
from colorcli.variants import VARIANTS, Variant

Floats = NDArray[np.float32]

LAST_TIME = 999       # of the noise schedule: pure noise
KEY_TIME = 300        # at which the colors of a key are still seen well
UNSURE_CELLS = 64.0   # a region of so many latents is colored half by the match, half by the model
KEY_NOISE = 0x6E59    # laid over the seed, so that a key is not noised with the numbers a frame begins from
LATENT_NOISE = 0x1A7  # the same for latents that are drawn from the autoencoder's distribution
PUBLISHED_COPY_THRESHOLD = 0.5   # mask that the published base model copies no background into

Image = Picture | PIL.Image.Image | NDArray[Any]  # an array is (H, W) or (H, W, 3 or 4), uint8 or 0..1


@dataclass(frozen=True)
class ColorizeOutput:
    """What a call of the pipeline gives."""

    images: list[Floats]   # (H, W, 3) in 0..1, one for each drawing


@dataclass(frozen=True)
class Reference:
    """What the model has read of a key: computed once for a shot, used by every frame."""

    tokens: KeyTokens
    context: Context         # what the cross-attention sees: the tokens, projected for every transformer block
    match: KeyMap | None     # parts and colors of the key, for runs that start from a color match
    picture: Tensor | None   # (1, 3, H, W) in -1..1, the key for reference-only attention


@dataclass(frozen=True)
class _Colored:
    """What became of frames of one canvas size."""

    layers: list[Floats]           # (h, w, 3) in 0..1
    latents: Tensor                # (B, C, h/8, w/8) finished
    matches: list[Match | None]    # of runs that start from the match


class ColorizePipeline(DiffusionPipeline):
    """Colors line art from a reference.

        pipe = ColorizePipeline.from_pretrained("mini")
        reference = pipe.encode_reference(PIL.Image.open("key.png"))
        layers = pipe(PIL.Image.open("walk.0001.png"), reference=reference).images

    A frame's layer depends on its own pixels, the reference and the settings only: its noise is drawn on the CPU from
    the seed, and frames of a batch never see each other. On a CPU the bits are the same in any batch.
    """

    _optional_components: ClassVar[list[str]] = [
        "token_head", "map_head", "feature_head", "matcher", "reference_net", "adapter", "tagger", "projection",
        "background_encoder", "style_encoder", "text_encoder", "tokenizer",
    ]

    def __init__(
        self,
        vae: MeanColorAutoencoder | AutoencoderKL,
        image_encoder: CLIPVisionModelWithProjection,
        sketch_encoder: SketchEncoder | PyramidSketchEncoder,
        unet: ColorUNet,
        scheduler: DDIMScheduler,
        tagger: TaggerTower | None = None,
        projection: ClusterProjection | None = None,
        token_head: TokenPartHead | None = None,
        map_head: MapPartHead | None = None,
        feature_head: FeaturePartHead | None = None,
        matcher: RegionMatcher | None = None,
        reference_net: ReferenceNet | None = None,
        adapter: BackgroundAdapter | RegionAdapters | None = None,
        background_encoder: BackgroundEncoder | None = None,
        style_encoder: StyleEncoder | None = None,
        text_encoder: CLIPTextModelWithProjection | None = None,
        tokenizer: CLIPTokenizer | None = None,
    ) -> None:
        super().__init__()
        self.attention = "sdpa"   # a name of BACKENDS
        self.engine: OpenVinoNetworks | None = None   # what runs the networks instead of torch, see `use_engine`
        self.loras: tuple[LoraSettings, ...] = ()   # what the networks are changed by, see `with_loras`
        self.side_by_side = 1   # frames that are colored at the same time on a CPU, each in a thread of its own
        self._ballot_box = threading.Lock()
        self.profile = MemoryProfile("full")
        self.decoding = CheckedDecoding()
        self._residency: Residency | None = None   # what moves parts; None: all lie where the pipeline lies
        self.register_modules(
            vae=vae,
            tagger=tagger,
            image_encoder=image_encoder,
            projection=projection,
            sketch_encoder=sketch_encoder,
            unet=unet,
            scheduler=scheduler,
            token_head=token_head,
            map_head=map_head,
            feature_head=feature_head,
            matcher=matcher,
            reference_net=reference_net,
            adapter=adapter,
            background_encoder=background_encoder,
            style_encoder=style_encoder,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> "ColorizePipeline":
        """Load a model by name ("mini") or from a folder in the diffusers layout. Raises WeightsError without one."""
        folder = weights_folder(str(pretrained_model_name_or_path))
        pipeline = super().from_pretrained(folder, **kwargs)
        if pipeline.text_encoder is not None and pipeline.tokenizer is None and (folder / "tokenizer").is_dir():
            # Published files hold no vocabulary, and one that was copied there later is not in the folder's index.
            pipeline.register_modules(tokenizer=read_tokenizer(folder / "tokenizer"))
        return pipeline

    def with_loras(self, loras: Sequence[LoraSettings], model: Path | None = None) -> "ColorizePipeline":
        """Give a pipeline whose networks are changed by LoRA files; this one stays as it is.

            tuned = pipe.with_loras([LoraSettings(file="show.safetensors", strength=0.8)])

        Both share all weights that no file changes. The changes add to those that this one has already.
        model: the folder or file that its weights came from; None: the folder it was loaded from.
        Raises WeightsError if a file is no LoRA, or belongs to another model.
        """
        assert self._residency is None, "its parts move: give the files to load_pipeline"
        model = model or Path(self.name_or_path)
        changes = [Lora(open_lora(chosen, model), chosen.strength) for chosen in loras]
        networks = {name: part for name in NETWORKS if (part := getattr(self, name)) is not None}
        found = ColorizePipeline(**self.components | changed_networks(networks, changes))
        found.register_to_config(_name_or_path=self.name_or_path)
        found.attention, found.profile, found.loras = self.attention, self.profile, (*self.loras, *loras)
        found.side_by_side = self.side_by_side
        found.decoding = CheckedDecoding(self.decoding.fast)
        return found

    @property
    def variant(self) -> Variant:
        """The kind of model this is, told from its parts."""
        if self.feature_head is not None:
            return VARIANTS["mini"]
        if self.style_encoder is not None:
            return VARIANTS["v2"]
        return VARIANTS["xl" if self.reference_net is None else "xlv2"]

    def __call__(
        self, lines: Image | Sequence[Image], reference: Reference | Image, preset: Preset | None = None
    ) -> ColorizeOutput:
        """Color line art: the model's layers at the size of the drawings, not yet finished along the lines.

        lines: one drawing or several; reference: the key, or what `encode_reference` gave for it. preset: None: the
        settings that suit the model. Raises PresetError if the preset asks for what the model has not.
        """
        drawings = [lines] if not isinstance(lines, Sequence) else lines
        preset = preset or default_preset(self.variant)
        known = reference if isinstance(reference, Reference) else self.encode_reference(reference, preset)
        networks = open_networks(preset)
        frames = [prepare_frame(picture_of(drawing), preset, self.variant, networks=networks) for drawing in drawings]
        layers = self.color(frames, known, preset)
        return ColorizeOutput([from_canvas(layer, f.canvas, 1.0) for layer, f in zip(layers, frames, strict=True)])

    @torch.inference_mode()
    def encode_reference(self, key: PreparedKey | Image, preset: Preset | None = None) -> Reference:
        """Read a key, as a picture or prepared: once for a shot. Raises PresetError as `__call__` does.

        Of several keys on a sheet each is read by itself where regions are matched, and their regions lie together.
        """
        preset = preset or default_preset(self.variant)
        check_for_variant(preset, self.variant)
        self._check_loras(preset)
        if self.engine is not None:
            check_engine_settings(preset, self.variant.name)
        if not isinstance(key, PreparedKey):
            image = preset.background.image
            behind = None if image is None else read_picture(Path(image))
            networks = open_networks(preset)
            key = prepare_key(picture_of(key), preset, self.variant, networks=networks, background=behind)
        if key.each:
            first, *others = [self.encode_reference(one, preset) for one in key.each]
            maps = [one.match for one in (first, *others) if one.match is not None]
            return replace(first, match=join_key_maps(maps))
        pictures = self.key_pictures(key)
        with self._phase("read key"):
            settings = self._settings(preset)
            if isinstance(settings, SideSettings):
                settings = replace(settings, edits=self._edits(preset))
            tokens = self._encoders(preset).read_key(pictures, settings)
        context: Context = tokens.context.to(self.unet.dtype)
        if isinstance(context, Tensor) and self.profile.keep_projected:
            with self._phase("project"):
                context = project_context(self.unet, context, self._adapters(preset))
        reference = Reference(tokens, context, None, pictures.reference if preset.injection.on else None)
        if preset.sampling.start != "match":
            return reference
        with self._phase("match", key.ink_canvas.shape):
            return replace(reference, match=self._read_key_parts(key, reference, preset))

    @torch.inference_mode()
    def color(
        self,
        frames: Sequence[PreparedFrame],
        reference: Reference,
        preset: Preset,
        decided: Sequence[Match | None] = (),
    ) -> list[Floats]:
        """Give the color layer (h, w, 3), 0..1, without lines, of each frame, at the size of its canvas.

        decided: for each frame what its regions are colored by, see `decide`; none: each by what is read in it alone.

        The frames are colored together if their canvases are of one size; on a CPU one by one, or `side_by_side`, as a
        batch is no faster there and would move the last bits. Raises torch.OutOfMemoryError if there is no room for so
        many together, and DeviceError if there is none for one.
        """
        return self._color_all(frames, reference, preset, decided)[0]

    @torch.inference_mode()
    def color_and_tell(
        self, frames: Sequence[PreparedFrame], reference: Reference, preset: Preset
    ) -> tuple[list[Floats], list[Match | None]]:
        """Color frames that stand alone as `color` does, and give the ballot that each was colored by."""
        return self._color_all(frames, reference, preset, ())

    def _color_all(
        self,
        frames: Sequence[PreparedFrame],
        reference: Reference,
        preset: Preset,
        decided: Sequence[Match | None],
    ) -> tuple[list[Floats], list[Match | None]]:
        """The layer of each frame, and for runs that start from the match its ballot."""
        sizes = {frame.canvas.size for frame in frames}
        alone = preset.sampling.sampler in RANGE_SAMPLERS and RANGE_SAMPLERS[preset.sampling.sampler].alone
        together = len(sizes) == 1 and self._device.type != "cpu" and not alone
        batches = [frames] if together else [[frame] for frame in frames]
        try:
            matches = [decided] if together else [decided[place : place + 1] for place in range(len(frames))]
            if len(batches) > 1 and self.side_by_side > 1:
                return self._color_side_by_side(frames, reference, preset, matches)
            return _joined([
                self._color(batch, reference, preset, decided=match)
                for batch, match in zip(batches, matches, strict=True)
            ])
        except Exception as error:
            if not out_of_memory(error):
                raise
            words = str(error)
            # The tensors of the attempt hang on the traceback, and would still hold the memory at the next one.
            traceback.clear_frames(error.__traceback__)
        self.free_memory()
        if (together or self.side_by_side > 1) and len(frames) > 1:
            raise torch.OutOfMemoryError(words)
        largest = max(frames, key=lambda frame: frame.canvas.size[0] * frame.canvas.size[1])
        raise too_large(largest.canvas.source, largest.canvas.size, self._device.type, self.profile.name)

    def _color_side_by_side(
        self,
        frames: Sequence[PreparedFrame],
        reference: Reference,
        preset: Preset,
        decided: Sequence[Sequence[Match | None]],
    ) -> tuple[list[Floats], list[Match | None]]:
        """Color frames at the same time, each in a thread of its own: more threads gain a small network little."""

        @torch.inference_mode()   # holds for one thread
        def color(frame: PreparedFrame, match: Sequence[Match | None]) -> _Colored:
            return self._color([frame], reference, preset, decided=match)

        with ThreadPoolExecutor(self.side_by_side, thread_name_prefix="color") as threads:
            return _joined(list(threads.map(color, frames, decided)))

    @torch.inference_mode()
    def color_next(
        self, frame: PreparedFrame, before: Tensor | None, reference: Reference, preset: Preset
    ) -> tuple[Floats, Tensor]:
        """Color a frame from where the one before it ended: its layer as `color` gives it, and where it ended itself.

        before: finished latents (1, C, h/8, w/8) of a canvas of the same size, of which only the last steps are made
        (`warm_start.level`); None: it starts from noise. The run starts from noise (`sampling.start`).
        """
        assert preset.sampling.start == "noise", "a run from a match begins from the match"
        made = self._color([frame], reference, preset, before)
        return made.layers[0], made.latents

    def free_memory(self) -> None:
        """Give back what is cached on the device, and take parts from it that no running phase needs."""
        if self._residency is not None:
            self._residency.clear()
        if self.unet.regions is not None:
            self.unet.regions.begin_anew()
        free_caches()

    @torch.inference_mode()
    def match(self, frame: PreparedFrame, reference: Reference, preset: Preset) -> Floats:
        """Paint the color match (h, w, 3), 0..1: the key's colors on the frame's closed regions, by part and place."""
        with self._phase("match", frame.ink_canvas.shape):
            conditions = self._conditions([frame], reference, preset)
            (found,) = self._matches([frame], reference, conditions, preset)
            return _painted(frame, reference, found).color

    @torch.inference_mode()
    def ballot(self, frame: PreparedFrame, reference: Reference, preset: Preset) -> Match | None:
        """Tell what a frame has to say on the colors of its regions, and of the same regions in the drawings around.

        None: it has no regions, or the key has none. For runs that start from the match. Any thread may ask;
        where frames are not colored `side_by_side` ballots are made one after the other, as parts may move there.
        """
        assert reference.match is not None, "the key was read for a run that starts from noise"
        if not can_match(frame, reference.match):
            return None
        with nullcontext() if self.side_by_side > 1 else self._ballot_box:
            return match_frame(self.read_parts(frame, reference, preset), frame, reference.match, self.matcher)

    @torch.inference_mode()
    def link(self, one: Match | None, other: Match | None) -> Links | None:
        """Tell which regions of two drawings are the same, by their ballots. Any thread may ask."""
        return None if one is None or other is None else link(one, other)

    @torch.inference_mode()
    def decide(
        self, ballots: Sequence[Match | None], own: int, links: Mapping[tuple[int, int], Links | None]
    ) -> Match | None:
        """Make one ballot of a frame's own, the one at `own`, and those of the drawings around it: see `counted`.

        None: the frame has no regions, or the key has none.
        """
        mine = ballots[own]
        if mine is None:
            return None
        found = {places: each for places, each in links.items() if each is not None}
        return replace(mine, scores=counted(ballots, own, found).log())

    @torch.inference_mode()
    def evidence(self, frame: PreparedFrame, decided: Match | None, reference: Reference) -> Evidence | None:
        """Tell what speaks for the color of each region of a frame, by what was decided; None: it began from noise."""
        if reference.match is None:
            return None
        if decided is None:   # the frame has no regions, or the key has none, and nothing speaks for anything
            count, colors = frame.regions.count, reference.match.palette.numpy()
            return Evidence(
                frame.regions.labels, np.zeros((count, len(colors)), np.float32), np.zeros(count, np.float32), colors
            )
        shares, likeness = decided.scores.softmax(1).numpy(), decided.nearest.numpy()
        return Evidence(frame.regions.labels, shares, likeness, reference.match.palette.numpy())

    @torch.inference_mode()
    def read_parts(self, frame: PreparedFrame, reference: Reference, preset: Preset) -> PartMap:
        """Read which part of the body each cell of a frame's canvas shows."""
        with self._phase("match", frame.ink_canvas.shape):
            return self._part_maps([frame], self._conditions([frame], reference, preset), preset)[0]

    @torch.inference_mode()
    def similarity(self, key: PreparedKey, preset: Preset) -> list[Floats | None]:
        """Show which parts of a key each of the preset's edits by words reaches: (H, W), 0..1, at the key's own size.

        1: the edit works in full; 0: it works the other way. None where an edit has no control, and all parts change.
        Raises WeightsError if the model lacks what reads words.
        """
        check_for_variant(preset, self.variant)
        picture = self.key_pictures(key).reference
        assert picture is not None
        with self._phase("read key"):
            tokens = self._clip_tokens(picture).float()
            maps = similarity_pictures(tokens, self._edits(preset), (picture.shape[2], picture.shape[3]))
        return [None if shown is None else np.asarray(shown.cpu().numpy(), np.float32) for shown in maps]

    def describe(self) -> dict[str, str]:
        """Tell the device, the attention backend, precision and memory, whether the network is compiled, and in what
        pictures are decoded, for the manifest.

        "frames" is how many the profile would color together, "side_by_side" how many at the same time on a CPU.
        """
        device = self._device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return {
            "device": name,
            "attention": self.attention,
            "engine": "torch" if self.engine is None else self.engine.describe(),
            "threads": str(torch.get_num_threads()),
            "precision": self.profile.precision.name,
            "memory": self.profile.describe(),
            "compiled": "off" if self.unet.regions is None else self.unet.regions.describe(),
            "decoding": self.decoding.describe(),
            "frames": str(self.profile.frames),
            "side_by_side": str(self.side_by_side),
        }

    def keep_within(self, profile: MemoryProfile, device: str | torch.device) -> "ColorizePipeline":
        """Bring the networks to a device in the precision of a profile; if it says so, each only while it is needed.

        The pipeline lies in the computer's memory and was never brought to a device before.
        """
        self.profile = profile
        apply_precision(self.components, profile)
        arrange(self.components, profile, device)
        self.decoding = CheckedDecoding(decodes_in_bf16(profile, device) and isinstance(self.vae, AutoencoderKL))
        free_caches()
        if not profile.moves:
            return self.to(device)
        networks = {name: part for name, part in self.components.items() if isinstance(part, torch.nn.Module)}
        self._residency = Residency(networks, device, profile)
        return self

    def use_engine(self, engine: OpenVinoNetworks | None) -> "ColorizePipeline":
        """Let another engine run the large networks that a frame goes through; None: torch again.

        Layers are the same but for rounding. The engine was made of the networks of this pipeline.
        """
        assert self._residency is None and self._device.type == "cpu", "the engine runs on the CPU"
        self.engine = engine
        return self

    @property
    def _denoiser(self) -> Callable[..., Tensor]:
        return self.unet if self.engine is None else self.engine.denoise

    def compile_network(self, on: bool = True) -> "ColorizePipeline":
        """Compile the blocks that the denoising network repeats, each when it is first needed; False: no more of it.

        Frames are the same but for rounding. Weights in fp8 are turned into 16 bit by hooks, which are not compiled.
        """
        self.unet.regions = Regions() if on and self.profile.storage != "fp8" else None
        return self

    @property
    def _device(self) -> torch.device:
        # Not `self.device`: diffusers walks every module of every part for that, 30 ms a frame.
        return next(self.unet.parameters()).device if self._residency is None else self._residency.device

    def _phase(self, name: Phase, canvas: Sequence[int] = (0, 0), frames: int = 1) -> AbstractContextManager[None]:
        """Run a phase on canvases of (height, width) pixels: inside, the parts that it needs are on the device."""
        if self._residency is None:
            return nullcontext()
        model = self.variant.name
        size = canvas[1], canvas[0]
        beside = activations(self.profile, model, name, size, frames) if model in SIZES else 0
        return self._residency.phase(name, beside)

    def _encoders(self, preset: Preset) -> Encoders | SideEncoders:
        """Give what turns pictures into tokens, latents and maps."""
        if self.style_encoder is not None:
            return SideEncoders(
                clip=lambda picture: self._clip_tokens(picture).float(),
                latents=lambda picture: self._latents(picture, preset),
                sketch=lambda sketch: self._sketch_maps(sketch, preset),
                background=self.background_encoder,
                style=self.style_encoder,
                adapters=self._adapters(preset),
                latent_scale=self.vae.config["scaling_factor"],
                context_shape=(
                    (self.image_encoder.config.image_size // self.image_encoder.config.patch_size) ** 2,
                    self.image_encoder.config.projection_dim,
                ),
                ways=(preset.compat, preset.sampling.seed),
            )
        return Encoders(
            clip=self._clip_tokens,
            tagger=self._tagger_tokens,
            latents=lambda picture: self._latents(picture, preset),
            projection=self.projection,
            sketch=lambda sketch: self._sketch_maps(sketch, preset),
            reference_net=self.reference_net if preset.background.reference_net else None,
            adapters=self._adapters(preset),
            latent_scale=self.vae.config["scaling_factor"],
            ways=(preset.compat, preset.sampling.seed),
        )

    def _clip_tokens(self, picture: Tensor) -> Tensor:
        pixels = clip_pixels(picture, self.image_encoder.config.image_size)
        return clip_tokens(self.image_encoder, pixels.to(self.image_encoder.dtype))

    @property
    def _words(self) -> WordReader:
        return WordReader(self.text_encoder, self.tokenizer, self._name)

    def _edits(self, preset: Preset) -> tuple[TextEdit, ...]:
        """Read the preset's edits by words. Raises WeightsError if the model lacks what reads them."""
        return self._words.edits([WordEdit(**dict(edit)) for edit in preset.manipulate], self._device)

    def _check_loras(self, preset: Preset) -> None:
        """Raise PresetError if a preset wants other LoRA files than those that this pipeline is changed by."""
        if preset.lora and tuple(preset.lora) != self.loras:
            raise PresetError(
                f"the preset has lora ({', '.join(Path(one.file).name for one in preset.lora)}), but this pipeline was "
                f"loaded with {', '.join(Path(one.file).name for one in self.loras) or 'none'}",
                hint="load_pipeline(preset.model, loras=preset.lora), or pipeline.with_loras(preset.lora)",
            )

    @property
    def _name(self) -> str:
        """The model's folder, for messages."""
        return str(self.name_or_path or f"the model {self.variant.name}")

    def _adapters(self, preset: Preset) -> Sequence[Adapter | RegionAdapter | None]:
        if self.adapter is None or not preset.background.split:
            return []
        if isinstance(self.adapter, RegionAdapters):
            return self.adapter.adapters(preset.background.adapter, preset.background.adapter)
        return self.adapter.adapters(preset.background.adapter)

    def _tagger_tokens(self, picture: Tensor) -> Tensor:
        pixels = tagger_pixels(picture, self.tagger.config["image_size"]).to(self.tagger.dtype)
        return self.tagger(pixels) if self.engine is None else self.engine.tagger(pixels)

    def _latents(self, picture: Tensor, preset: Preset) -> Tensor:
        """Encode a picture (B, 3, h, w): (B, C, h/8, w/8), not scaled; of a distribution its mode."""
        picture = picture.to(self.vae.dtype)
        if self.profile.strips and isinstance(self.vae, AutoencoderKL):
            encoded: Any = AutoencoderKLOutput(encode_in_strips(self.vae, picture))
        else:
            encoded = self.vae.encode(picture)
        published = preset.compat == "published"
        generator = torch.Generator("cpu").manual_seed(preset.sampling.seed ^ LATENT_NOISE) if published else None
        return latents_of(encoded, generator).float()

    def _sketch_maps(self, sketch: Tensor, preset: Preset) -> Sequence[Tensor]:
        """Encode line art (B, 3, h, w)."""
        if self.engine is not None:
            return self.engine.sketch(sketch)
        sketch = sketch.to(self.sketch_encoder.dtype)
        if preset.compat == "published" and isinstance(self.sketch_encoder, SketchEncoder):
            return self.sketch_encoder(sketch, rope="cosine")
        return self.sketch_encoder(sketch)

    def _settings(self, preset: Preset) -> ConditionSettings:
        """Give the preset's strengths in the terms of the networks."""
        return condition_settings(
            preset, self.unet, has_adapter=self.adapter is not None, has_sides=self.style_encoder is not None
        )

    def key_pictures(self, key: PreparedKey) -> KeyPictures:
        """Give the key's pictures as the model sees them: laid on a canvas, or whole."""
        whole = self.variant.key_view == "whole"
        color = over_paper(key.picture) if whole else key.color_canvas
        mask = key.bleach_mask if whole else key.bleach_mask_canvas
        behind = key.background
        return KeyPictures(
            picture_tensor(color).to(self._device),
            mask_tensor(mask).to(self._device),
            None if behind is None else picture_tensor(behind.color).to(self._device),
            None if behind is None else mask_tensor(behind.mask).to(self._device),
        )

    def _color(
        self,
        frames: Sequence[PreparedFrame],
        reference: Reference,
        preset: Preset,
        before: Tensor | None = None,
        decided: Sequence[Match | None] = (),
    ) -> _Colored:
        """Color frames of one canvas size together."""
        sampling, scale = preset.sampling, self.vae.config["scaling_factor"]
        canvas = frames[0].ink_canvas.shape, len(frames)
        with self._phase("read frame", *canvas):
            conditions = self._conditions(frames, reference, preset)
            key_seen = self._seen_key(frames[0], reference, preset)
        matches: list[Match | None] = []
        painted: list[Painted] = []
        start, steps, level = before, sampling.steps, 1.0
        if before is not None:
            level = preset.warm_start.level
            steps = max(1, round(sampling.steps * level))
        if sampling.start == "match":
            level = sampling.start_level
            with self._phase("match", *canvas):
                matches = self._matches(frames, reference, conditions, preset, decided)
                painted = [_painted(frame, reference, match) for frame, match in zip(frames, matches, strict=True)]
                if steps == 0:
                    return _Colored([match.color for match in painted], torch.empty(0), matches)
                shown = [picture_tensor(match.color).to(self._device) for match in painted]
                start = torch.cat([self._latents(each, preset) for each in shown]) * scale
        if self.unet.regions is not None:
            self.unet.regions.begin(len(frames))
        with self._phase("denoise", *canvas):
            conditions = self._projected(conditions, frames[0], reference, preset)
            latents = sample(
                guided(
                    self._denoiser,
                    conditions,
                    Guidance(
                        preset.reference.guidance, preset.sketch.guidance, sampling.window, sampling.off_window,
                        preset.reference.guidance_window,
                    ),
                    levels_of(self.scheduler.config),
                    key_seen,
                ),
                self._noise(frames, preset),
                sampler=sampling.sampler,
                count=steps,
                schedule=self.scheduler.config,
                steps=sampling.schedule,
                seeds=[sampling.seed] * len(frames),
                start=start,
                level=level,
                blend=_blend(conditions, preset),
            )
        with self._phase("decode", *canvas):
            layers = self._decode(latents / scale, reference)
            if start is not None and painted:
                # What the model changed is laid over the match. A region of few latents is left to the match, which
                # knows it at full size.
                trust = torch.cat([mask_tensor(match.cells / (match.cells + UNSURE_CELLS)) for match in painted])
                colors = torch.cat([picture_tensor(match.color) for match in painted]).to(layers)
                layers = colors + trust.to(layers) * (layers - self._decode(start / scale, reference))
        if preset.compat == "published":
            unit = to_8bit(layers.float().cpu()) / np.float32(255)  # (B, h, w, 3), fractions cut off
        else:
            unit = ((layers.float().clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).cpu().numpy()  # (B, h, w, 3)
        return _Colored([np.asarray(layer, np.float32) for layer in unit], latents, matches)

    def _decode(self, latents: Tensor, reference: Reference) -> Tensor:
        """Decode latents (B, C, h, w), not scaled, one after the other: together they gain no time and take memory."""

        def decode(one: Tensor) -> Tensor:
            if self.profile.strips and isinstance(self.vae, AutoencoderKL):
                return decode_in_strips(self.vae, one)
            decoded: Tensor = self.vae.decode(one).sample
            return decoded

        latents = latents.to(self.vae.dtype)
        return torch.cat([self.decoding(decode, one, reference) for one in latents.split(1)])

    @torch.inference_mode()
    def conditions(self, frame: PreparedFrame, reference: Reference, preset: Preset) -> Conditions:
        """Put together what the network reads for a frame; the context as tokens, not projected. For training."""
        with self._phase("read frame", frame.ink_canvas.shape):
            return replace(self._conditions([frame], reference, preset), context=reference.tokens.context)

    @torch.inference_mode()
    def encode_picture(self, color: Floats) -> Tensor:
        """Encode a picture of canvas size (h, w, 3), 0..1: (1, C, h/8, w/8), scaled as the network takes them."""
        with self._phase("read frame", color.shape[:2]):
            return latents_of(self.vae.encode(picture_tensor(color).to(self._device, self.vae.dtype))).float() * float(
                self.vae.config["scaling_factor"])

    def _conditions(
        self, pictures: Sequence[PreparedFrame] | Sequence[PreparedKey], reference: Reference, preset: Preset
    ) -> Conditions:
        """Put together what the network reads for drawings of one canvas size, the key being one."""
        sketch = torch.cat([sketch_tensor(picture.ink_canvas) for picture in pictures]).to(self._device)
        mask = torch.cat([mask_tensor(picture.mask_canvas) for picture in pictures]).to(self._device)
        found = self._encoders(preset).frame_conditions(reference.tokens, sketch, mask, self._settings(preset))
        return replace(found, context=reference.context, backend=self.attention)

    def _projected(
        self, conditions: Conditions, frame: PreparedFrame, reference: Reference, preset: Preset
    ) -> Conditions:
        """Project what lies behind the character, which is the same in every step, once for all steps.

        What the side encoders have read is the same in every frame of one canvas size, too: once for a shot.
        """
        if not self.profile.keep_projected:
            return conditions
        encoders, settings, sides = self._encoders(preset), self._settings(preset), conditions.sides
        if sides.hints and isinstance(encoders, SideEncoders) and isinstance(settings, SideSettings):
            hints = [hint for hint in sides.hints if isinstance(hint, Tensor)]
            height, width = frame.ink_canvas.shape
            projected = reference.tokens.kept.once(
                "projected hints", encoders.sides_by(settings, (height, width)),
                lambda: project_hints(self.unet, [hint.to(self.unet.dtype) for hint in hints]), most=1,
            )
            conditions = replace(conditions, sides=replace(sides, hints=projected))
        if conditions.bank:
            conditions = replace(conditions, bank=project_bank(self.unet, conditions.bank))
        return conditions

    def _noise(self, frames: Sequence[PreparedFrame | PreparedKey], preset: Preset, salt: int = 0) -> Tensor:
        """Draw the noise of canvases of one size: (B, C, h/8, w/8) of unit variance."""
        height, width = frames[0].ink_canvas.shape
        shape = (self.unet.config.in_channels, height // 8, width // 8)
        return frame_noise([preset.sampling.seed ^ salt] * len(frames), shape).to(self._device)

    def _seen_key(self, frame: PreparedFrame, reference: Reference, preset: Preset) -> ReferenceOnly | None:
        """Prepare the key for reference-only attention, stretched to the canvas of a frame."""
        if reference.picture is None:
            return None
        injection, encoders = preset.injection, self._encoders(preset)
        picture, size = reference.picture, frame.ink_canvas.shape

        def encode() -> tuple[Tensor, Sequence[Tensor]]:
            shown = stretch(picture, size)
            return encoders.latent_scale * encoders.latents(shown), encoders.sketch(-shown)

        latents, maps = reference.tokens.kept.once("key on the canvas", (encoders.ways, size), encode)
        scaled = [injection.sketch * level for level in maps]
        noise = self._noise([frame], preset, KEY_NOISE)
        return ReferenceOnly(latents, noise, scaled, injection.fidelity, injection.start)

    def _matches(
        self,
        frames: Sequence[PreparedFrame],
        reference: Reference,
        conditions: Conditions,
        preset: Preset,
        decided: Sequence[Match | None] = (),
    ) -> list[Match | None]:
        """What each frame's regions are colored by; None: it has no regions, or the key has none."""
        known = reference.match
        assert known is not None, "the key was read for a run that starts from noise"
        if decided:
            return list(decided)
        maps = self._part_maps(frames, conditions, preset)
        return [
            match_frame(parts, frame, known, self.matcher) if can_match(frame, known) else None
            for parts, frame in zip(maps, frames, strict=True)
        ]

    def _part_maps(
        self, frames: Sequence[PreparedFrame], conditions: Conditions, preset: Preset
    ) -> list[PartMap]:
        white = -torch.cat([sketch_tensor(frame.ink_canvas) for frame in frames]).to(self._device)
        read = self._reader.read(white, conditions, self._noise(frames, preset), LAST_TIME)
        return [
            part_map(parts, frame.mask_canvas, features) for frame, parts, features in zip(frames, *read, strict=True)
        ]

    def _read_key_parts(self, key: PreparedKey, reference: Reference, preset: Preset) -> KeyMap:
        """Read the parts of a key from its lines and its colors."""
        conditions = self._conditions([key], reference, preset)
        shown = picture_tensor(key.color_canvas).to(self._device)
        latents = self._latents(shown, preset) * self.vae.config["scaling_factor"]
        noised = self.scheduler.add_noise(latents, self._noise([key], preset), torch.tensor([KEY_TIME]))
        (parts,), (features,) = self._reader.read(shown, conditions, noised, KEY_TIME)
        return key_map(part_map(parts, key.mask_canvas, features), key)

    @property
    def _reader(self) -> PartReader:
        return PartReader(
            self.unet, self._tagger_tokens, self.feature_head, self.map_head, self.token_head, self._denoiser
        )


def _painted(frame: PreparedFrame, reference: Reference, found: Match | None) -> Painted:
    assert reference.match is not None, "the key was read for a run that starts from noise"
    return unpainted(frame) if found is None else paint(frame, reference.match, found.chosen)


def _joined(made: Sequence[_Colored]) -> tuple[list[Floats], list[Match | None]]:
    return [layer for one in made for layer in one.layers], [match for one in made for match in one.matches]


def _blend(conditions: Conditions, preset: Preset) -> Blend | None:
    """Say where the background's latents are laid in: outside the character."""
    if conditions.background_latents is None:
        return None
    assert conditions.region is not None
    threshold = preset.sketch.mask_threshold
    if preset.compat == "published" and not conditions.adapters:
        threshold = PUBLISHED_COPY_THRESHOLD
    return Blend(conditions.region.mask > threshold, conditions.background_latents)


def picture_of(image: Image) -> Picture:
    """Take a picture as it comes in Python: our own, Pillow's, or an array (H, W), (H, W, 3) or (H, W, 4)."""
    if isinstance(image, Picture):
        return image
    if isinstance(image, PIL.Image.Image):
        image = np.asarray(image.convert("RGBA" if "A" in image.getbands() else "RGB"))
    array = image.astype(np.float32) / (255.0 if image.dtype == np.uint8 else 1.0)
    color = array[..., :3] if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2)
    alpha = array[..., 3] if array.ndim == 3 and array.shape[2] == 4 else None
    return Picture(np.ascontiguousarray(color), alpha, FORMATS["png8"], 3 if alpha is None else 4)
