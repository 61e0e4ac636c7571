"""What each technique gains and how far the picture moves for it: ways to color the same drawings, in turns.

The baseline is the plain loop (`speed.plain`). From a prepared drawing to its color layer: files are not read or
written here, so what reading ahead and writing behind gain comes on top.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from colorcli.images import FORMATS, Picture
from colorcli.model.backend import choose_backend
from colorcli.model.compiled import Regions
from colorcli.model.decoding import CheckedDecoding
from colorcli.model.machine import out_of_memory
from colorcli.model.residency import free_caches
from colorcli.pipeline import ColorizePipeline, Reference
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import PreparedKey, prepare_key
from colorcli.presets import Preset
from colorcli.speed.measure import equivalence, interleaved, load
from colorcli.speed.plain import PlainLoop
from colorcli.variants import Variant

Floats = NDArray[np.float32]
Size = tuple[int, int]   # width, height, pixels

CHARACTER = 7       # the seed of the character that is drawn
PEAK_SIDE = {"cuda": 8192, "cpu": 1024}   # of the matrices whose product gives the peak
PEAK_TRIES = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """What is compared."""

    batches: tuple[int, ...] = (1,)     # frames colored together
    compiled: bool = False              # with compiled blocks, too
    rounds: int = 5                     # how often each is timed
    until: float | None = None          # when it should be over, on the clock of `time.monotonic`
    backend: str | Callable[..., Any] = "inductor"   # of torch.compile


@dataclass(frozen=True)
class Way:
    """One way to color. prepare: sets it up, not timed."""

    name: str
    frames: int
    color: Callable[[], list[Floats]]
    prepare: Callable[[], None]
    like: str = "plain"      # the way whose picture this one should paint


@dataclass
class Tried:
    """What the first call of a way told."""

    layers: list[Floats] = field(default_factory=list)
    first_seconds: float = 0.0
    memory_bytes: int | None = None
    decoding: str = ""
    problem: str | None = None


@dataclass(frozen=True)
class Scene:
    """Drawings of one size, the key, and what is made of them."""

    size: Size
    preset: Preset
    frames: list[PreparedFrame]
    key: PreparedKey
    reference: Reference


def draw_scene(pipeline: ColorizePipeline, preset: Preset, size: Size, count: int) -> Scene:
    """Draw a character in `count` poses and prepare it; the canvas is as large as the frames if the model allows it."""
    from colorcli.train.drawings import design_character, draw

    character = design_character(CHARACTER)
    drawings = [
        draw(character, pose, size, view="front", background="plain", framing="full") for pose in range(count + 1)
    ]
    variant = pipeline.variant
    preset = with_canvas(preset, size, variant)
    key = prepare_key(_picture(drawings[0].color), preset, variant)
    lines = [_picture(np.repeat(one.line[:, :, None], 3, axis=2)) for one in drawings[1:]]
    frames = [prepare_frame(line, preset, variant) for line in lines]
    return Scene(size, preset, frames, key, pipeline.encode_reference(key, preset))


def with_canvas(preset: Preset, size: Size, variant: Variant) -> Preset:
    """Set the canvas to the frame's own size, unless the preset says one or the model runs no such canvas."""
    canvas = preset.canvas
    sides = [round(side / variant.multiple_of) * variant.multiple_of for side in size]
    fits = all(variant.min_side <= side <= variant.max_side for side in sides)
    if canvas.size or canvas.area or not fits or variant.shipped:   # mini is best on small canvases, whatever the frame
        return preset
    whole = canvas.model_copy(update={"size": (sides[0], sides[1]), "crop": "frame"})
    return preset.model_copy(update={"canvas": whole})


def compare(pipeline: ColorizePipeline, preset: Preset, size: Size, asked: Asked) -> dict[str, Any]:
    """Time every way to color frames of one size beside the plain loop, and tell how far its pictures are from those.

    Gives {"size", "canvas", "rounds", "load_before", "load_after", "matmul_flops_per_second", "flops_per_frame",
    "without_guidance", "ways": {name: seconds of a frame, ratio to the plain loop, equivalence ...}}.
    """
    preset = preset.model_copy(update={
        "sampling": preset.sampling.model_copy(update={"start": "noise"}),
        "sketch": preset.sketch.model_copy(update={"guidance": 1.0}),
        "background": preset.background.model_copy(update={"split": False}),
    })
    scene = draw_scene(pipeline, preset, size, max(asked.batches))
    kept = pipeline.attention, pipeline.unet.regions, pipeline.decoding, pipeline.profile
    try:
        loop = PlainLoop(pipeline)
        ways = ways_to_color(pipeline, loop, scene, asked)
        tried: dict[str, Tried] = {}
        for way in ways:
            if asked.until is not None and "ours" in tried and time.monotonic() > asked.until:
                tried[way.name] = Tried(problem="no time was left")
                continue
            tried[way.name] = try_way(way, pipeline)
        timed = [way for way in ways if tried[way.name].problem is None and way.name != EXACT]
        calls = {way.name: way.color for way in timed}
        times = interleaved(
            calls, asked.rounds, warm_up=0, prepare={way.name: way.prepare for way in timed}, until=asked.until
        )
        peak = matmul_peak(pipeline)
        counted = {"plain": _flops(pipeline, scene, loop), "ours": _flops(pipeline, scene)}
        described = {way.name: describe(way, tried, times, counted, peak) for way in ways}
        without = unguided(pipeline, scene, tried)
    finally:
        pipeline.attention, pipeline.unet.regions, pipeline.decoding, pipeline.profile = kept
    return {
        "size": f"{size[0]}x{size[1]}",
        "canvas": "{}x{}".format(*scene.frames[0].canvas.size),
        "rounds": times["rounds"], "load_before": times["load_before"], "load_after": load(),
        "matmul_flops_per_second": peak,
        "flops_per_frame": counted,
        "without_guidance": without,
        "ways": described,
    }


EXACT = "plain in fp32"


def ways_to_color(pipeline: ColorizePipeline, loop: PlainLoop, scene: Scene, asked: Asked) -> list[Way]:
    """List the ways, the plain loop first."""
    here, own = pipeline.device, pipeline.attention
    first = scene.frames[:1]

    def ours(
        name: str, frames: int = 1, attention: str = own, regions: Regions | None = None,
        decoding: CheckedDecoding = pipeline.decoding, scene: Scene = scene, like: str = "plain", keep: bool = True,
    ) -> Way:
        profile = replace(pipeline.profile, keep_projected=keep)

        def prepare() -> None:
            pipeline.attention, pipeline.unet.regions, pipeline.decoding = attention, regions, decoding
            pipeline.profile = profile

        def color() -> list[Floats]:
            return pipeline.color(scene.frames[:frames], scene.reference, scene.preset)

        return Way(name, frames, color, prepare, like)

    ways = [
        Way("plain", 1, lambda: [loop.color(first[0], scene.reference, scene.preset)], lambda: None),
        ours("ours"),
    ]
    batches = [count for count in asked.batches if count > 1]
    ways += [ours(f"ours, {count} frames at once", count) for count in batches]
    for other in ("sdpa", "xformers"):
        if other != own and runs_here(other, pipeline):
            ways.append(ours(f"ours, attention {other}", attention=other))
    if here.type == "cuda":
        # In bf16 whatever the check says: what it would gain is worth knowing, beside how far the picture moves.
        ways.append(ours("ours, decoded in fp32", decoding=CheckedDecoding(False)))
        ways.append(ours("ours, decoded in bf16", decoding=CheckedDecoding(True, most_levels=float("inf"))))
    if asked.compiled:
        ways += [
            ours(f"ours, compiled{'' if count == 1 else f', {count} frames at once'}", count,
                 regions=Regions(asked.backend))
            for count in dict.fromkeys((1, max(asked.batches)))
        ]
    if pipeline.reference_net is not None:
        ways += _with_background(pipeline, scene, ours)
    if pipeline.unet.conv_in.weight.dtype != torch.float32:
        ways.append(Way(EXACT, 1, lambda: [_exact(pipeline, scene)], lambda: None))
    return ways


def _with_background(pipeline: ColorizePipeline, scene: Scene, ours: Callable[..., Way]) -> list[Way]:
    """The ReferenceNet: as it runs, and with the same tokens projected in every call."""
    split = scene.preset.background.model_copy(update={"split": True})
    preset = scene.preset.model_copy(update={"background": split})
    drawn = draw_scene(pipeline, preset, scene.size, 1)
    profile, pipeline.profile = pipeline.profile, replace(pipeline.profile, keep_projected=False)
    each_call = replace(drawn, reference=pipeline.encode_reference(drawn.key, drawn.preset))
    pipeline.profile = profile
    return [
        ours("ours, background projected in each call", scene=each_call, keep=False, like="itself"),
        ours("ours, with a background", scene=drawn, like="ours, background projected in each call"),
    ]


def _exact(pipeline: ColorizePipeline, scene: Scene) -> Floats:
    """The plain loop in float32: how far the numbers alone move the picture. Only as long as it is needed."""
    return PlainLoop(pipeline, torch.float32).color(scene.frames[0], scene.reference, scene.preset)


def runs_here(backend: str, pipeline: ColorizePipeline) -> bool:
    """Whether a backend of attention takes this network on its device."""
    with contextlib.suppress(Exception):
        numbers = pipeline.unet.conv_in.weight.dtype
        return choose_backend(backend, pipeline.device, [pipeline.unet], numbers) == backend
    return False


def try_way(way: Way, pipeline: ColorizePipeline) -> Tried:
    """Color for the first time: what it paints, how long it takes to begin, what memory it needs at its peak."""
    found = Tried()
    log.info("%s", way.name)
    cuda = pipeline.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(pipeline.device)
    clock = time.perf_counter()
    try:
        way.prepare()
        found.layers = way.color()
    except Exception as error:
        if not out_of_memory(error):
            raise
        found.problem = "memory is used up"
    if found.problem is not None:
        free_caches()
    found.first_seconds = time.perf_counter() - clock
    regions = pipeline.unet.regions
    if "compiled" in way.name and regions is not None and regions.failure is not None:
        found.problem = regions.describe()
    found.decoding = pipeline.decoding.describe()
    if cuda:
        found.memory_bytes = int(torch.cuda.max_memory_allocated(pipeline.device))
    return found


def describe(
    way: Way, tried: dict[str, Tried], times: dict[str, Any], counted: dict[str, int], peak: float
) -> dict[str, Any]:
    """Put together what is known of a way."""
    mine = tried[way.name]
    if mine.problem is not None:
        return {"problem": mine.problem}
    found: dict[str, Any] = {
        "frames": way.frames, "first_call_seconds": round(mine.first_seconds, 3), "memory_bytes": mine.memory_bytes,
        "decoding": "fp32" if "plain" in way.name else mine.decoding,
    }
    if way.name in times["seconds"]:
        per_frame = {name: round(value / way.frames, 5) for name, value in times["seconds"][way.name].items()}
        ratio = times["ratios"].get(way.name, {"median": 1.0, "low": 1.0, "high": 1.0})
        found["seconds_per_frame"] = per_frame
        found["ratio"] = {name: round(value * way.frames, 4) for name, value in ratio.items()}
        if "ours" in times["seconds"]:
            found["of_ours"] = round(per_frame["median"] / times["seconds"]["ours"]["median"], 4)
        if "background" not in way.name:   # which is another amount of work than was counted
            flops = counted["plain" if way.name == "plain" else "ours"] / per_frame["median"]
            found |= {"flops_per_second": flops, "share_of_matmul": round(flops / peak, 4)}
        twin = times["seconds"].get(way.name.replace(", compiled", ""))
        if "compiled" in way.name and twin is not None:
            saved = twin["median"] / way.frames - per_frame["median"]
            found["pays_after_frames"] = frames_to_pay(mine.first_seconds, saved)
    other = tried.get(way.like)
    if other is not None and other.layers and way.name != way.like:
        found |= {"like": way.like, "equivalence": equivalence(other.layers[:1], mine.layers[:1])}
    exact = tried.get(EXACT)
    if exact is not None and exact.layers and way.like == "plain" and way.name != EXACT:
        found["to_fp32"] = equivalence(exact.layers[:1], mine.layers[:1])
    return found


def frames_to_pay(seconds: float, saved: float) -> int | None:
    """After how many frames what took `seconds` at first is saved again, at `saved` seconds a frame; None: never."""
    return math.ceil(seconds / saved) if saved > 0 else None


def unguided(pipeline: ColorizePipeline, scene: Scene, tried: dict[str, Tried]) -> dict[str, float] | None:
    """How far the picture is from one without guidance: were it the same, no equivalence would say anything."""
    ours = tried["ours"].layers
    reference = scene.preset.reference
    if not ours or reference.guidance <= 1:
        return None
    preset = scene.preset.model_copy(update={"reference": reference.model_copy(update={"guidance": 1.0})})
    return equivalence(pipeline.color(scene.frames[:1], scene.reference, preset), ours)


def _flops(pipeline: ColorizePipeline, scene: Scene, loop: PlainLoop | None = None) -> int:
    """Count the floating point operations of a frame, from runs of one and of two steps; of the loop if one is given.

    Every sampler but those of two stages calls the network once a step, whatever else it does.
    """
    pipeline.attention, pipeline.unet.regions = "sdpa", None   # whose operations the counter knows
    counts = []
    for steps in (1, 2):
        sampling = scene.preset.sampling.model_copy(update={"steps": steps, "sampler": "euler"})
        preset = scene.preset.model_copy(update={"sampling": sampling})
        with FlopCounterMode(display=False) as counter:
            if loop is not None:
                loop.color(scene.frames[0], scene.reference, preset)
            else:
                pipeline.color(scene.frames[:1], scene.reference, preset)
        counts.append(int(counter.get_total_flops()))
    return counts[0] + (scene.preset.sampling.steps - 1) * (counts[1] - counts[0])


def matmul_peak(pipeline: ColorizePipeline) -> float:
    """Measure the operations a second of one large product of matrices, in the numbers of the network."""
    device, numbers = pipeline.device, pipeline.unet.conv_in.weight.dtype
    side = PEAK_SIDE.get(device.type, 1024)
    one = torch.randn(side, side, dtype=numbers, device=device)
    shortest = float("inf")
    for _ in range(PEAK_TRIES):
        _wait(device)
        clock = time.perf_counter()
        one @ one
        _wait(device)
        shortest = min(shortest, time.perf_counter() - clock)
    return 2 * side**3 / shortest


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _picture(levels: NDArray[Any]) -> Picture:
    return Picture(np.asarray(levels / 255, np.float32), None, FORMATS["png8"], 3)


def of_sizes(
    pipeline: ColorizePipeline, preset: Preset, sizes: Sequence[Size], asked: Asked, seconds: float
) -> Iterator[dict[str, Any]]:
    """Compare at several sizes within `seconds`; each gets its share of what is left by its pixels."""
    end = time.monotonic() + seconds
    for number, size in enumerate(sizes):
        left = [width * height for width, height in sizes[number:]]
        now = time.monotonic()
        yield compare(pipeline, preset, size, replace(asked, until=now + (end - now) * left[0] / sum(left)))
