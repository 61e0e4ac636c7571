"""A small studio for tests: drawings, keys, and a colorizer that is simple enough to check by hand."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorcli.errors import FrameError
from colorcli.images import PixelFormat, read_picture, write_picture
from colorcli.model.evidence import Evidence
from colorcli.model.weights import write_list
from colorcli.prepare.frame import PreparedFrame
from colorcli.prepare.key import PreparedKey
from colorcli.presets import BackgroundSettings, CanvasSettings, FinishSettings, Preset
from colorcli.shot.leases import LeaseTimes
from colorcli.shot.manifest import FrameRecord, ModelEntry, Totals
from colorcli.shot.plan import ShotPlan, ShotRequest, plan_shots
from colorcli.shot.run import RunResult, run_plans
from colorcli.shot.steady import LINKED_APART

PNG8 = PixelFormat("png", "uint8")
MODEL = ModelEntry(name="mini", sha256="ab" * 32, license="Apache-2.0")
Float = NDArray[np.float32]


def drawing(number: int, size: tuple[int, int] = (96, 64)) -> Float:
    """A box in ink on white paper, at another place for every number; (H, W, 3)."""
    width, height = size
    paper = np.ones((height, width, 3), np.float32)
    left, top = 8 + 3 * number % (width // 3), 8 + 2 * number % (height // 4)
    paper[top : top + height // 2, left : left + 3] = 0
    paper[top : top + height // 2, left + width // 3 : left + width // 3 + 3] = 0
    paper[top : top + 3, left : left + width // 3] = 0
    paper[top + height // 2 : top + height // 2 + 3, left : left + width // 3 + 3] = 0
    return paper


def draw(path: Path, number: int = 1, size: tuple[int, int] = (96, 64), alpha: Float | None = None) -> Path:
    """Write one drawing; the extension chooses the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = {".png": PNG8, ".tga": PixelFormat("tga", "uint8"), ".exr": PixelFormat("exr", "half")}
    write_picture(path, drawing(number, size), alpha, kinds.get(path.suffix.lower(), PNG8))
    return path


def draw_shot(folder: Path, numbers: Sequence[int] = (1, 2, 3, 4), name: str = "walk.{:04d}.png") -> Path:
    """Write a shot and, beside the folder, the key.png of all shots there."""
    for number in numbers:
        draw(folder / name.format(number), number)
    draw_key(folder.parent / "key.png")
    return folder


def draw_key(path: Path, color: tuple[float, float, float] = (0.8, 0.3, 0.2)) -> Path:
    """Write a key: a box of one color with a line around it."""
    picture = drawing(0)
    inside = np.zeros(picture.shape[:2], bool)
    inside[11:40, 11:40] = True
    picture[inside] = color
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, picture, None, PNG8)
    return path


def hollow_model(folder: Path) -> Path:
    """Make a folder that is a model to all that do not load it."""
    folder.mkdir()
    (folder / "unet.safetensors").write_bytes(b"not to be loaded")
    write_list(folder, "mini", "Apache-2.0")
    return folder


def as_painted(**groups: Any) -> Preset:
    """The colorizer's layers as they are, on the whole frame; `groups` of settings on top."""
    return Preset(
        canvas=CanvasSettings(crop="frame"),
        background=BackgroundSettings(rule="model"),
        finish=FinishSettings(fill="model", palette="off", lines="none"),
        **groups,
    )


@dataclass
class FakeColorizer:
    """Paints every canvas in the mean color of the key; counts what it was asked for."""

    colored: int = 0
    encoded: int = 0
    asked: int = 0
    balloted: int = 0
    linked: int = 0
    before_color: Callable[[int], None] = lambda count: None  # called with the count of frames asked for so far
    threads: set[str] = field(default_factory=set)

    def encode_reference(self, key: PreparedKey, preset: Preset) -> Float:
        self.encoded += 1
        mean: Float = key.color_canvas[key.mask_canvas > 0.5].reshape(-1, 3).mean(axis=0)
        return mean

    def color(
        self,
        frames: Sequence[PreparedFrame],
        reference: Float,
        preset: Preset,
        decided: Sequence[float] = (),
    ) -> list[Float]:
        """Every canvas is a little darker by what was decided."""
        self.asked += len(frames)
        self.before_color(self.asked - len(frames))
        self.threads.add(threading.current_thread().name)
        self.colored += len(frames)
        layers: list[Float] = []
        for frame in frames:
            layer = np.empty((*frame.ink_canvas.shape, 3), np.float32)
            layer[:] = reference
            layers.append(layer * (1 - 0.5 * frame.mask_canvas[:, :, None]))
        for number, darker in enumerate(decided):
            layers[number] = layers[number] * (1 - darker)
        return layers

    def color_and_tell(
        self, frames: Sequence[PreparedFrame], reference: Float, preset: Preset
    ) -> tuple[list[Float], list[None]]:
        return self.color(frames, reference, preset), [None] * len(frames)

    def ballot(self, frame: PreparedFrame, reference: Float, preset: Preset) -> float:
        """Tells where the box is: how far down its ink begins, 0..1."""
        self.balloted += 1
        return float(np.flatnonzero(frame.lines.ink.any(axis=1))[0]) / len(frame.lines.ink)

    def link(self, one: float, other: float) -> tuple[float, float]:
        """Which two ballots it was asked for."""
        self.linked += 1
        return one, other

    def decide(self, ballots: Sequence[float | None], own: int, links: Mapping[tuple[int, int], Any]) -> float:
        """The mean of what is said; it sees to it that it was given the links between those that are near."""
        near = {
            (one, other): (ballots[one], ballots[other])
            for one, other in combinations(range(len(ballots)), 2)
            if other - one <= LINKED_APART and ballots[one] is not None and ballots[other] is not None
        }
        assert links == near
        said = [ballot for ballot in ballots if ballot is not None]
        return sum(said) / len(said)

    def evidence(self, frame: PreparedFrame, decided: float | None, reference: Float) -> Evidence | None:
        """It knows nothing of regions."""
        return None

    def color_next(
        self, frame: PreparedFrame, before: Float | None, reference: Float, preset: Preset
    ) -> tuple[Float, Float]:
        """Half of what it paints shines through from the frame before."""
        (layer,) = self.color([frame], reference, preset)
        layer = layer if before is None else (layer + before) / 2
        return layer, layer

    def describe(self) -> Mapping[str, Any]:
        return {"device": "cpu", "attention": "none"}


def cannot_color(number: int) -> Callable[[int], None]:
    """Fails on one frame, counted from 0."""

    def before_color(count: int) -> None:
        if count == number:
            raise FrameError("walk.0002.png cannot be colored", hint="draw it again")

    return before_color


@dataclass
class Listener:
    """A reporter that remembers."""

    shots: list[str] = field(default_factory=list)
    records: list[FrameRecord] = field(default_factory=list)
    progress: list[tuple[int, int]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    totals: Totals | None = None
    threads: set[str] = field(default_factory=set)

    def started(self, plan: ShotPlan) -> None:
        self.shots.append(plan.name)

    def frame(self, record: FrameRecord, done: int, total: int) -> None:
        self.records.append(record)
        self.progress.append((done, total))
        self.threads.add(threading.current_thread().name)

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def finished(self, totals: Totals) -> None:
        self.totals = totals

    def status(self) -> dict[str, str]:
        """Frame name -> what became of it."""
        return {record.frame: record.status for record in self.records}


@dataclass
class Outcome:
    """All that a test may want to look at after a run."""

    result: RunResult
    listener: Listener
    colorizer: FakeColorizer
    plans: list[ShotPlan]
    loads: int

    @property
    def colored(self) -> list[str]:
        return [record.frame for record in self.listener.records if record.status == "written"]

    def pictures(self) -> dict[str, bytes]:
        """File name -> bytes of everything in OUT that is a picture."""
        out = self.plans[0].out
        pictures = [path for path in sorted(out.iterdir()) if path.suffix in (".png", ".tga", ".exr")]
        return {path.name: path.read_bytes() for path in pictures}

    def pixels(self) -> dict[str, bytes]:
        """File name -> pixels of every picture in OUT, without what its file says of how it was made."""
        return {name: read_picture(self.plans[0].out / name).color.tobytes() for name in self.pictures()}


def color(
    shot: Path | str | Sequence[Path | str],
    *,
    ref: Path | str | Sequence[str] | None = None,
    colorizer: FakeColorizer | None = None,
    model: ModelEntry = MODEL,
    at_once: int = 1,
    lease_times: LeaseTimes | None = None,
    **asked: Any,
) -> Outcome:
    """Plan and run, with `key.png` beside the (first) shot as the key."""
    shots = (str(shot),) if isinstance(shot, (Path, str)) else tuple(str(one) for one in shot)
    if ref is None:
        ref = str(Path(shots[0]).parent / "key.png")
    refs = (str(ref),) if isinstance(ref, (Path, str)) else tuple(ref)
    colorizer = colorizer or FakeColorizer()
    loads: list[int] = []

    def load() -> FakeColorizer:
        loads.append(1)
        return colorizer

    request = ShotRequest(shots, refs, **asked)
    plans = plan_shots(request)
    listener = Listener()
    result = run_plans(
        plans, request.preset, listener, load_colorizer=load, model=model, at_once=at_once, lease_times=lease_times
    )
    return Outcome(result, listener, colorizer, plans, len(loads))
