"""What a machine must have to color with a model, for farms that choose machines by it."""

from dataclasses import dataclass, replace

from colorcli.errors import UsageError
from colorcli.presets import Preset
from colorcli.shot.stand_in import STAND_IN
from colorcli.variants import VARIANTS

MIB = 2**20
STEP_MIB = 256           # needs are rounded up to this
PROGRAM_MIB = 1536       # Python, torch, and frames of television size that are read ahead, finished and written
STAND_IN_MIB = 512       # the same without torch
# For each pixel of a frame, with two of them in work: measured between 1920x1080 and 4096x2160, 143 with mini.
FRAME_BYTES = 200
VCPUS = 2
MACHINE_PROFILES = ("8g", "12g", "24g", "full")

FIELDS = {"vcpu": "vcpus", "memory": "memory_mib", "gpu": "gpus", "gpu.memory": "gpu_memory_mib"}   # as typed


@dataclass(frozen=True)
class Needs:
    """The least that a machine must have."""

    vcpus: int = VCPUS
    memory_mib: int = 0       # of the computer
    gpus: int = 0
    gpu_memory_mib: int = 0   # of each card

    def amounts(self) -> dict[str, int]:
        """The same by the words that people type, those that ask for nothing left out."""
        return {word: value for word, name in FIELDS.items() if (value := getattr(self, name))}

    def for_frames(self, size: tuple[int, int]) -> "Needs":
        """The needs with room for frames of this many pixels, width and height."""
        return replace(self, memory_mib=_up(self.memory_mib + size[0] * size[1] * FRAME_BYTES / MIB))

    def changed(self, texts: tuple[str, ...]) -> "Needs":
        """The needs with some of them as typed: "vcpu=8", "memory=16384" (MiB), "gpu=0". Raises UsageError."""
        needs = self
        for text in texts:
            word, _, value = text.partition("=")
            if word not in FIELDS or not value.isdecimal() or not value.isascii() or len(value) > 9:
                raise UsageError(
                    f"--need {text} is no need of a machine",
                    hint=f"{', '.join(FIELDS)} with a whole number, memory in MiB: --need memory=16384",
                )
            needs = replace(needs, **{FIELDS[word]: int(value)})
            if word == "gpu" and not needs.gpus:
                needs = replace(needs, gpu_memory_mib=0)
        return needs


def needs_of(
    preset: Preset, family: str, *, device: str = "auto", memory: str = "auto", precision: str = "auto",
    engine: str = "torch",
) -> Needs:
    """What coloring with a preset takes. family: which of `VARIANTS` its model is.

    A model that is made for the CPU asks for no card unless `device` names one. A card must be as large as a profile of
    `--memory` promises; for "auto", as large as it takes for nothing to be moved between one frame and the next.
    Imports torch, but for the stand-in.
    """
    if engine == STAND_IN:
        return Needs(memory_mib=_up(STAND_IN_MIB))
    from colorcli.model import memory as profiles

    on_card = device not in ("auto", "cpu") if family == "mini" or engine != "torch" else device != "cpu"
    area = _canvas_area(preset, family)
    side = round(area**0.5)
    numbers = profiles.choose_precision(precision, "cuda" if on_card else "cpu", family)
    if not on_card:
        profile = profiles.choose_profile("auto", "cpu", None, family, (side, side), numbers)
        return Needs(memory_mib=_up(profiles.estimate(profile, family, (side, side)) / MIB + PROGRAM_MIB))
    at_hand = {
        name: profiles.choose_profile(name, "cuda", None, family, (side, side), numbers) for name in MACHINE_PROFILES
    }
    if memory in at_hand:
        chosen = at_hand[memory]
        card = chosen.budget if chosen.budget is not None else profiles.estimate(chosen, family, (side, side))
    else:
        moving = [profile for profile in at_hand.values() if profile.moves]
        card, chosen = min(
            ((profiles.estimate(profile, family, (side, side), settled=True), profile) for profile in moving),
            key=lambda one: one[0],
        )
    weights = sum(profiles.part_bytes(chosen, family).values())
    return Needs(memory_mib=_up(weights / MIB + PROGRAM_MIB), gpus=1, gpu_memory_mib=_up(card / MIB))


def _canvas_area(preset: Preset, family: str) -> int:
    canvas = preset.canvas
    return canvas.size[0] * canvas.size[1] if canvas.size else canvas.area or VARIANTS[family].canvas_area


def _up(mib: float) -> int:
    return -int(-mib // STEP_MIB) * STEP_MIB
