"""Measure a model on pictures whose true colors are known, along the same path that a user's shot takes."""

import contextlib
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.errors import FrameError, UsageError
from colorcli.finish.finish import finish_frame
from colorcli.images import Picture, over_paper, picture_digest, write_picture
from colorcli.model.onnx_networks import open_networks
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import PreparedKey, prepare_key
from colorcli.prepare.networks import Networks
from colorcli.presets import Preset
from colorcli.review.metrics import (
    Score,
    character_paper,
    copied_key_score,
    flicker,
    level_change,
    painted_key_score,
    pooled,
    region_score,
    true_regions,
)
from colorcli.shot.engine import Colorizer, model_entry, variant_of
from colorcli.shot.steady import decide_all
from colorcli.train.data.archives import make_folder
from colorcli.train.evaluation.scores.frames import FRAME_SCORES, YARDSTICKS, Instruments, Look, Scores, Seen
from colorcli.train.evaluation.scores.table import COLUMNS, DEFAULT
from colorcli.train.evaluation.truths import Known, KnownFrame, find_known_shots
from colorcli.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor

Float = NDArray[np.float32]
Pairing = Literal["own", "cross", "shuffled"]

PUBLISHED_SHIFT = 4   # picture i is colored with the key of picture i + 4
OF_THE_KEY = ("image_similarity", "tag_agreement", "tag_colors", "background_similarity")   # higher with the own key
TOLD_APART = 0.02     # by less than this a score does not tell one key from another
KEYS_KEPT = 4         # encoded keys that stay in memory


@dataclass(frozen=True)
class Plan:
    """What is colored with what, and what is measured of it."""

    metrics: tuple[str, ...] = DEFAULT   # words of `scores.table.METRICS`
    cross: bool = False                  # every key with every other shot, too: they show one character
    shuffled: bool = False               # the key of another, too: the shuffled pairs of the papers
    shift: int = PUBLISHED_SHIFT         # which other: so many further on
    drift_keys: int = 3                  # keys that each drawing is colored with to measure drift, its own first


@dataclass(frozen=True)
class EvaluationRow:
    """How one shot came out with one key."""

    shot: str
    key: str                    # name of the shot whose key it is
    pairing: Pairing
    frames: int
    regions: int                # of all frames together; 0 where they were not looked at
    scores: Scores              # by the key of a column
    truth: Scores               # what the truth itself would get, where that is not known beforehand

    def as_dict(self) -> dict[str, Any]:
        """The row as plain values, for JSON."""
        fixed = {"shot": self.shot, "key": self.key, "pairing": self.pairing, "frames": self.frames}
        of_truth = {"truth": self.truth} if self.truth else {}
        return {**fixed, "regions": self.regions, **self.scores, **of_truth}


@dataclass(frozen=True)
class FrameResult:
    """One finished frame, for whoever wants to look at it."""

    shot: str
    key: str
    pairing: Pairing
    frame: str
    line: Float      # all four (H, W, 3) in 0..1, over white
    reference: Float
    made: Float
    truth: Float
    scores: Scores


@dataclass(frozen=True)
class Group:
    """All rows of one pairing together."""

    pairing: Pairing
    rows: int
    frames: int
    regions: int
    scores: Scores   # means of the rows, and what only a whole set has
    truth: Scores    # means of the rows: what pictures without a fault would get, as far as it is measured


@dataclass(frozen=True)
class Evaluation:
    """What came out of an evaluation."""

    rows: tuple[EvaluationRow, ...]
    groups: tuple[Group, ...]
    skipped: tuple[str, ...]   # pictures of a training set that cannot be read, and why
    digest: str                # SHA-256 of the pixels of all pictures that were measured
    seconds: float


@dataclass(frozen=True)
class Observers:
    """Who is told of what, as soon as it is there."""

    row: Callable[[EvaluationRow], None] = lambda row: None
    frame: Callable[[FrameResult], None] = lambda result: None
    skipped: Callable[[str], None] = lambda reason: None


def evaluate_shots(
    data: Path,
    preset: Preset,
    *,
    cross: bool = False,
    out: Path | None = None,
    colorizer: Colorizer | None = None,
    variant: Variant | None = None,
    on_row: Callable[[EvaluationRow], None] | None = None,
) -> list[EvaluationRow]:
    """Color every shot in `data` with its own key, with `cross` also with every other shot's, and measure.

    colorizer, variant: given together, or the model of the preset is loaded. out: a folder for the colored frames,
    `out/SHOT--KEY/`. on_row: called with each row as soon as it is there.
    Raises ShotError, FrameError, KeyImageError or WeightsError for what cannot be read, OutputError for what cannot be
    written.
    """
    shots = find_known_shots(data)
    if variant is None:
        variant = variant_of(model_entry(preset.model), preset.model)
    if colorizer is None:
        from colorcli.loading import load_pipeline  # torch comes in here, and nowhere else

        colorizer = load_pipeline(preset.model, loras=preset.lora)
    observers = Observers() if on_row is None else Observers(row=on_row)
    return list(evaluate(shots, preset, variant, colorizer, Plan(cross=cross), out=out, observers=observers).rows)


def evaluate(
    known: Sequence[Known],
    preset: Preset,
    variant: Variant,
    colorizer: Colorizer,
    plan: Plan = Plan(),
    instruments: Instruments | None = None,
    *,
    out: Path | None = None,
    observers: Observers = Observers(),
    pass_over: bool = False,
) -> Evaluation:
    """Color pictures with known colors as the plan says, and measure.

    out: a folder for the colored frames, `out/SHOT--KEY/`. pass_over: pictures that cannot be read are left out and
    counted, as in a training set; else they raise FrameError or KeyImageError. Raises UsageError for a plan that the
    pictures are too few for.
    """
    check_plan(plan, len(known))
    instruments = instruments or Instruments()
    instruments.check(plan.metrics)
    clock = time.perf_counter()
    run = _Run(known, preset, variant, colorizer, plan, instruments, out, observers, pass_over)
    skipped: list[str] = []
    rows: list[EvaluationRow] = []
    for shot, owner, pairing in pairs_of(len(known), plan):
        try:
            row = run.color(shot, owner, pairing)
        except FrameError as error:
            if not pass_over:
                raise
            reason = f"{known[shot].name} with {known[owner].name}: {error.message}"
            skipped.append(reason)
            observers.skipped(reason)
            continue
        rows.append(row)
        observers.row(row)
    if not rows:
        raise FrameError(f"none of {len(known)} pictures can be read: {skipped[0]}", hint="colorcli dataset check DIR")
    groups = tuple(run.group(pairing, rows) for pairing in dict.fromkeys(row.pairing for row in rows))
    return Evaluation(tuple(rows), groups, tuple(skipped), run.digest(), time.perf_counter() - clock)


def check_plan(plan: Plan, count: int) -> None:
    """Raise UsageError if `count` shots or pictures are too few for a plan."""
    if plan.shuffled and count < 2:
        raise UsageError("shuffled pairs need two shots or pictures, and there is one",
                         hint="give more of them, or a higher --limit")
    if "drift" in plan.metrics and count < 2:
        raise UsageError("drift needs the keys of two shots or pictures, and there is one",
                         hint="give more of them, or a higher --limit, or leave drift out of --metrics")


def pairs_of(count: int, plan: Plan) -> Iterator[tuple[int, int, Pairing]]:
    """Say which shot is colored with whose key: numbers of both among `count`, and why they are together."""
    # Where the shift would lead back to the shot itself, the next one's key is taken.
    shift = plan.shift if count == 0 or plan.shift % count else 1
    for shot in range(count):
        for owner in range(count) if plan.cross else (shot,):
            yield shot, owner, "own" if owner == shot else "cross"
        if plan.shuffled:
            yield shot, (shot + shift) % count, "shuffled"


def notes_on(groups: Sequence[Group]) -> list[str]:
    """Say which numbers tell nothing, because the truth itself gets the same with its own key and with another's."""
    truths = {group.pairing: group.truth for group in groups}
    notes = []
    for key in OF_THE_KEY:
        own, other = (truths.get(pairing, {}).get(key) for pairing in ("own", "shuffled"))
        if own is not None and other is not None and own - other < TOLD_APART:
            notes.append(f"{COLUMNS[key].title} hardly tells the keys apart: the truth gets {own:.3f} with its own, "
                         f"{other:.3f} with another's")
    return notes


def mean_scores(rows: Sequence[EvaluationRow]) -> Scores:
    """The plain mean of every score over the rows that have it."""
    return _means([row.scores for row in rows])


def mean_row(rows: Sequence[EvaluationRow], name: str = "mean") -> EvaluationRow:
    """Sum several rows up: sums of counts, plain means of the rest."""
    assert rows, "nothing to sum up"
    frames, regions = sum(row.frames for row in rows), sum(row.regions for row in rows)
    return EvaluationRow(name, "", rows[0].pairing, frames, regions, mean_scores(rows),
                         _means([row.truth for row in rows]))


# --- the run -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Key:
    """A key, ready to color with."""

    picture: Picture
    prepared: PreparedKey
    reference: Any
    look: Look
    digest: str


@dataclass(frozen=True)
class _Finished:
    """A frame that the next may begin from."""

    drawing: str            # digest of its pixels
    stretch: int            # number of the stretch of frames that begin from each other
    size: tuple[int, int]   # of the canvas
    layer: Float
    end: Any                # where it ended, for `Colorizer.color_next`


@dataclass
class _Tally:
    """What adds up over the frames of one row."""

    scores: list[Score] = field(default_factory=list)
    painted: list[Score] = field(default_factory=list)
    copied: list[Score] = field(default_factory=list)
    jumps: list[float] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)
    by_frame: list[Scores] = field(default_factory=list)
    truths: list[Scores] = field(default_factory=list)
    seconds: float = 0.0
    network: float = 0.0
    before: tuple[Float, NDArray[np.bool_], Float] | None = None
    finished: _Finished | None = None


class _Run:
    """One evaluation: what it is made with, and what it has gathered of all pictures together."""

    def __init__(
        self,
        known: Sequence[Known],
        preset: Preset,
        variant: Variant,
        colorizer: Colorizer,
        plan: Plan,
        instruments: Instruments,
        out: Path | None,
        observers: Observers,
        pass_over: bool,
    ) -> None:
        self.pass_over = pass_over
        self.known, self.preset, self.variant, self.colorizer = known, preset, variant, colorizer
        self.plan, self.instruments, self.out, self.observers = plan, instruments, out, observers
        self.networks: Networks | None = open_networks(preset)
        self._keys: OrderedDict[int, _Key] = OrderedDict()
        self._digests: set[str] = set()
        self._true_features: dict[tuple[int, int], Tensor] = {}
        self._made_features: dict[Pairing, list[Tensor]] = {}

    def color(self, shot: int, owner: int, pairing: Pairing) -> EvaluationRow:
        """Color one shot with one key and measure. The truth is read only after a frame is finished."""
        known, key = self.known[shot], self.key(owner)
        folder = None
        if self.out is not None:
            folder = self.out / f"{_file_name(known.name)}--{_file_name(self.known[owner].name)}"
            make_folder(folder)
        tally = _Tally()
        clock = time.perf_counter()
        decided = self._decided(known.frames, key)
        tally.seconds += time.perf_counter() - clock
        for number, frame in enumerate(known.frames):
            self._color_frame((shot, number), frame, key, owner, pairing, folder, tally, decided[number : number + 1])
        regions = pooled(tally.scores)
        scores: Scores = {}
        if "regions" in self.plan.metrics:
            told = bool(tally.scores)
            scores |= {
                "accuracy": regions.accuracy if told else None,
                "area_accuracy": regions.area_accuracy if told else None,
                "painted_key": pooled(tally.painted).accuracy if told else None,
                "copied_key": pooled(tally.copied).accuracy if told else None,
            }
        if "flicker" in self.plan.metrics:
            several = len(known.frames) > 1
            scores |= {name: (_mean(values) or 0.0) if several else None
                       for name, values in (("flicker", tally.jumps), ("levels", tally.levels))}
        # What was pooled over regions counts, not the mean of the frames.
        of_frames = {name: value for name, value in _means(tally.by_frame).items() if name not in scores}
        if "seconds" in self.plan.metrics:
            share = tally.network / tally.seconds if tally.seconds else 0.0
            scores |= {"seconds_per_frame": tally.seconds / len(known.frames), "network_share": share}
        scores |= of_frames
        return EvaluationRow(
            known.name, self.known[owner].name, pairing, len(known.frames), regions.regions, scores,
            _means(tally.truths),
        )

    def group(self, pairing: Pairing, rows: Sequence[EvaluationRow]) -> Group:
        """Sum the rows of a pairing up, with what is measured of the whole set."""
        chosen = [row for row in rows if row.pairing == pairing]
        scores = mean_scores(chosen)
        made = self._made_features.get(pairing)
        if made:
            import torch

            from colorcli.train.evaluation.scores.distributions import set_distance

            found = set_distance(torch.stack(list(self._true_features.values())), torch.stack(made))
            name = self.instruments.network.name
            scores[f"fid ({name})"] = None if found is None else found.fid
            scores[f"kid ({name})"] = None if found is None else found.kid
        frames, regions = sum(row.frames for row in chosen), sum(row.regions for row in chosen)
        return Group(pairing, len(chosen), frames, regions, scores, _means([row.truth for row in chosen]))

    def digest(self) -> str:
        """SHA-256 of the pixels of all pictures, whatever their order."""
        return hashlib.sha256("\n".join(sorted(self._digests)).encode()).hexdigest()

    def key(self, owner: int) -> _Key:
        """Give a key, encoded; those used last stay in memory."""
        if owner in self._keys:
            self._keys.move_to_end(owner)
            return self._keys[owner]
        known = self.known[owner]
        picture, mask = known.read_key(), known.read_key_mask()
        masks = self._masks(mask)
        prepared = prepare_key(picture, self.preset, self.variant, masks, self.networks)
        reference = self.colorizer.encode_reference(prepared, self.preset)
        look = Look(over_paper(prepared.picture), prepared.mask, self.instruments)
        self._keys[owner] = _Key(picture, prepared, reference, look, picture_digest(picture))
        while len(self._keys) > max(KEYS_KEPT, self.plan.drift_keys):
            self._keys.popitem(last=False)
        return self._keys[owner]

    def _decided(self, frames: Sequence[KnownFrame], key: _Key) -> list[Any]:
        """Decide the colors of every frame of a shot with those around it; give nothing if those do not count."""
        if not self.preset.steady.on:
            return []
        found: list[tuple[str, Any]] = []
        for known in frames:
            picture = known.line()
            frame = prepare_frame(picture, self.preset, self.variant, self._masks(known.mask()), self.networks)
            found.append((picture_digest(picture), self.colorizer.ballot(frame, key.reference, self.preset)))
        ballots = [ballot for _, ballot in found]
        return decide_all(self.colorizer, ballots, lambda place: found[place][0], self.preset.steady.reach)

    def _layer_from_before(
        self, place: int, picture: Picture, frame: PreparedFrame, key: _Key, tally: _Tally
    ) -> Float:
        """Color a frame from the one before it, as a shot whose first frame is number 1 would be."""
        drawing, last = picture_digest(picture), tally.finished
        if last is not None and last.drawing == drawing:
            return last.layer
        stretch, size = (place + 1) // self.preset.warm_start.every, frame.canvas.size
        follows = last is not None and (last.stretch, last.size) == (stretch, size)
        before = last.end if follows and last is not None else None
        layer, end = self.colorizer.color_next(frame, before, key.reference, self.preset)
        tally.finished = _Finished(drawing, stretch, size, layer, end)
        return layer

    def _masks(self, mask: Float | None) -> list[Float]:
        """A mask that a file tells counts where the preset leaves the choice."""
        return [mask] if mask is not None and self.preset.masks.source in ("auto", "files") else []

    def _color_frame(
        self,
        place: tuple[int, int],
        known: KnownFrame,
        key: _Key,
        owner: int,
        pairing: Pairing,
        folder: Path | None,
        tally: _Tally,
        decided: Sequence[Any],
    ) -> None:
        """Color one frame and measure it. place: numbers of the shot and of the frame in it."""
        preset = self.preset
        clock = time.perf_counter()
        picture = known.line()
        frame = prepare_frame(picture, preset, self.variant, self._masks(known.mask()), self.networks)
        inside = time.perf_counter()
        if preset.warm_start.on:
            layer = self._layer_from_before(place[1], picture, frame, key, tally)
        else:
            layer = self.colorizer.color([frame], key.reference, preset, decided)[0]
        network = time.perf_counter() - inside
        color, alpha = finish_frame(layer, frame, key.prepared, preset)
        if folder is not None:
            write_picture(folder / f"{_file_name(Path(known.name).stem)}.png", color, alpha, picture.format)
        seconds = time.perf_counter() - clock

        truth = known.color()
        if truth.size != picture.size:
            raise FrameError(f"{known.name} is {truth.size} in color, but its drawing is {picture.size}",
                             hint="line/ and color/ have to fit pixel for pixel")
        made, true_color = over_paper(Picture(color, alpha, picture.format, 4)), over_paper(truth)
        scores: Scores = {}
        if "regions" in self.plan.metrics and pairing != "shuffled":  # another character's key has other colors
            regions, fitting_key = true_regions(picture, truth), _at_size(key.picture, picture.size)
            tally.scores.append(region_score(regions, made))
            tally.painted.append(painted_key_score(regions, fitting_key))
            tally.copied.append(copied_key_score(regions, fitting_key))
            scores["accuracy"] = tally.scores[-1].accuracy
        if "flicker" in self.plan.metrics:
            paper = character_paper(picture)
            if tally.before is not None and tally.before[0].shape == made.shape:
                places = tally.before[1], paper, tally.before[2], true_color
                tally.jumps.append(flicker(tally.before[0], made, *places))
                tally.levels.append(level_change(tally.before[0], made, *places))
            tally.before = made, paper, true_color
        made_look, true_look = (Look(shown, frame.mask, self.instruments) for shown in (made, true_color))
        seen = Seen(made_look, true_look, key.look, layer, frame)
        for name, measure in FRAME_SCORES.items():
            if name in self.plan.metrics:
                scores |= measure(seen)
        of_truth: Scores = {}
        for name in YARDSTICKS:
            if name in self.plan.metrics:
                of_truth |= FRAME_SCORES[name](seen.of_truth)
        if "drift" in self.plan.metrics and pairing == "own":
            scores |= self._drift(place[0], frame, layer)
        if "fid" in self.plan.metrics:
            if place not in self._true_features:
                self._true_features[place] = self.instruments.network.features(true_color)
            self._made_features.setdefault(pairing, []).append(self.instruments.network.features(made))
        # Only now is the frame known to be whole.
        tally.seconds += seconds
        tally.network += network
        tally.by_frame.append(scores)
        tally.truths.append(of_truth)
        self._digests |= {key.digest, f"{picture_digest(picture)} {picture_digest(truth)}"}
        self.observers.frame(FrameResult(
            self.known[place[0]].name, self.known[owner].name, pairing, known.name, over_paper(picture), key.look.color,
            made, true_color, scores,
        ))

    def _drift(self, shot: int, frame: PreparedFrame, layer: Float) -> Scores:
        """Color one drawing with several keys and one noise, and measure what changes beside color."""
        import torch

        from colorcli.train.evaluation.scores.drift import gram_drift, line_drift

        count = min(self.plan.drift_keys, len(self.known))
        layers = [layer]
        for step in range(1, len(self.known)):
            if len(layers) == count:
                break
            # In a training set a key that cannot be read is told of with its own picture; the next one will do.
            with contextlib.suppress(FrameError) if self.pass_over else contextlib.nullcontext():
                key = self.key((shot + step) % len(self.known))
                layers.append(self.colorizer.color([frame], key.reference, self.preset)[0])
        if len(layers) < 2:
            return {"drift": None, "line_drift": None}
        tokens = torch.stack([self.instruments.judge.tokens(shown) for shown in layers])
        return {"drift": gram_drift(tokens), "line_drift": line_drift(layers)}


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are there; None if none is."""
    there = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(there)) if there else None


def _means(several: Sequence[Scores]) -> Scores:
    """The mean of every score over those that have it."""
    names = dict.fromkeys(name for scores in several for name in scores)
    return {name: _mean([scores.get(name) for scores in several]) for name in names}


def _file_name(name: str) -> str:
    """A name without the folders in it."""
    return name.replace("/", "_").replace("\\", "_")


def _at_size(picture: Picture, size: tuple[int, int]) -> Picture:
    """Scale a key to the size of the frames, where the baselines lay one on the other."""
    if picture.size == size:
        return picture
    color = cv2.resize(picture.color, size, interpolation=cv2.INTER_AREA)
    alpha = None if picture.alpha is None else cv2.resize(picture.alpha, size, interpolation=cv2.INTER_AREA)
    return replace(picture, color=color, alpha=alpha)
