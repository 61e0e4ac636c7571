"""Which frames of a shot are worth a look first, and why, in words."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from colorcli.review.measure import Change, Look
from colorcli.shot.manifest import FrameRecord
from colorcli.shot.unsure import unsure_count

JUMPED = 0.003         # share of the character that has to have another color before a frame is pointed at
UNEXPLAINED = 0.25     # share of a change that is left for it to be told, where a frame beside it explains the rest
RESTLESS = 0.5         # flicker, 8-bit levels, below which no frame is pointed at for it
OFF_PALETTE = 2.0      # mean CIEDE2000 to the key's colors below which no frame is pointed at for it
OTHER_SHARES = 0.1     # share of the character painted with other colors than in the frames around it
AROUND = 6             # frames before and after that a frame is compared with
CHARACTER_CHANGES = 0.4   # of its size from one frame to the next: a limb does not do that, a lost mask does


@dataclass(frozen=True)
class Measured:
    """One frame, as far as it could be measured."""

    record: FrameRecord
    trouble: str | None = None     # its file is not as recorded
    look: Look | None = None
    change: Change | None = None   # from the frame before it


@dataclass(frozen=True)
class Reason:
    """Why a frame is worth a look."""

    kind: str      # failed, file, jump, flicker, palette, shares, unsure, character
    weight: float  # larger is more urgent
    words: str
    colors: tuple[str, str] | None = None   # #rrggbb, what was and what is


def worth_a_look(frames: Sequence[Measured]) -> dict[int, list[Reason]]:
    """Give the places of the frames that a person should look at first, the most urgent first, with the reasons."""
    found: dict[int, list[Reason]] = {}
    for rule in RULES:
        for place, reason in rule(frames).items():
            found.setdefault(place, []).append(reason)
    for reasons in found.values():
        reasons.sort(key=lambda reason: -reason.weight)
    order = sorted(found, key=lambda place: (-sum(reason.weight for reason in found[place]), place))
    return {place: found[place] for place in order}


def _broken(frames: Sequence[Measured]) -> Mapping[int, Reason]:
    """Frames that are not there, or not as they were written."""
    reasons: dict[int, Reason] = {}
    for place, frame in enumerate(frames):
        record = frame.record
        if record.status == "failed":
            said = record.error.message if record.error else "no reason is recorded"
            older = "; the picture in the folder is an older one" if record.checks.get("older_picture") else ""
            reasons[place] = Reason("failed", 1000, f"failed: {said}{older}")
        elif frame.trouble:
            reasons[place] = Reason("file", 900, frame.trouble)
    return reasons


def _jumps(frames: Sequence[Measured]) -> Mapping[int, Reason]:
    """Frames whose regions change color: the odd one of three, else the one in which the change arrives.

    A frame that differs from both its neighbors explains both changes, as far as they go, so that the neighbor behind
    it is not listed for what only goes back.
    """
    left = [frame.change.jumped if frame.change else 0.0 for frame in frames]   # change into each frame, unexplained
    left.append(0.0)
    odd: dict[int, float] = {}

    def both_ways(place: int) -> float:
        return min(left[place], left[place + 1])

    for place in sorted(range(len(frames)), key=lambda place: (-both_ways(place), place)):
        share = both_ways(place)
        if share >= JUMPED:
            odd[place] = share
            left[place] -= share
            left[place + 1] -= share
    reasons: dict[int, Reason] = {}
    for place, frame in enumerate(frames):
        if frame.change is None:
            continue
        arrives = left[place] >= max(JUMPED, UNEXPLAINED * frame.change.jumped)
        if not (arrives or place in odd):
            continue
        share = frame.change.jumped if arrives else odd[place]
        first = frame.change.jumps[0] if frame.change.jumps else None
        reasons[place] = Reason(
            "jump",
            20 + 60 * share,
            f"{_percent(share)} of the character has another color than "
            + ("the frame before" if arrives else "both neighbors"),
            None if first is None else (first.before, first.after),
        )
    return reasons


def _restless(frames: Sequence[Measured]) -> Mapping[int, Reason]:
    """Frames that change more than the shot usually does, without a whole region of another color."""
    values = [frame.change.flicker if frame.change else 0.0 for frame in frames]
    limit = max(RESTLESS, _unusual([value for value, frame in zip(values, frames, strict=True) if frame.change]))
    return {
        place: Reason("flicker", 10 + min(value, 20), f"colors change by {value:.1f} levels on the mean where the "
                      "drawing does not")
        for place, value in enumerate(values)
        if value > limit and (change := frames[place].change) is not None and change.jumped < JUMPED
    }


def _off_palette(frames: Sequence[Measured]) -> Mapping[int, Reason]:
    """Frames with colors that the key does not have."""
    there = {place: frame.look for place, frame in enumerate(frames) if frame.look is not None}
    far = {place: look.palette_distance for place, look in there.items() if look.palette_distance is not None}
    limit = max(OFF_PALETTE, _unusual(list(far.values())))
    reasons = {}
    for place, distance in far.items():
        if distance > limit:
            foreign = there[place].foreign
            example = f", such as {foreign[0][0]} on {foreign[0][1]:.1%} of the character" if foreign else ""
            words = f"colors are {distance:.1f} CIEDE2000 from the palette on the mean{example}"
            reasons[place] = Reason("palette", 10 + min(distance, 30), words)
    return reasons


def _other_shares(frames: Sequence[Measured]) -> Mapping[int, Reason]:
    """Frames that spread the key's colors differently than the frames around them do."""
    uses = {place: frame.look.palette_use for place, frame in enumerate(frames) if frame.look is not None}
    uses = {place: use for place, use in uses.items() if use.sum() > 0}
    places = sorted(uses)
    away: dict[int, float] = {}
    for number, place in enumerate(places):
        others = [uses[other] for other in places[max(0, number - AROUND) : number + AROUND + 1] if other != place]
        if len(others) >= 2:
            away[place] = float(np.abs(uses[place] - np.median(others, axis=0)).sum() / 2)
    limit = max(OTHER_SHARES, _unusual(list(away.values())))
    return {
        place: Reason("shares", 8 + 40 * share, f"{share:.0%} of the character is painted with other colors than in "
                      "the frames around it")
        for place, share in away.items() if share > limit
    }


def _unsure(frames: Sequence[Measured]) -> Mapping[int, Reason]:
    """Frames of which the coloring itself said that regions may well have another color."""
    reasons: dict[int, Reason] = {}
    for place, frame in enumerate(frames):
        share = frame.record.unsure_share
        if frame.record.is_to_look_at and share is not None:
            count = unsure_count(frame.record)
            words = f"unsure: {count} {'region' if count == 1 else 'regions'}, {_percent(share)} of the figure"
            reasons[place] = Reason("unsure", 5 + 40 * share, words)
    return reasons


def _character(frames: Sequence[Measured]) -> Mapping[int, Reason]:
    """Frames in which nothing is drawn, or much more or less character is found than in those beside them."""
    reasons: dict[int, Reason] = {}
    seen = [(place, frame.look.character_px) for place, frame in enumerate(frames) if frame.look is not None]
    for number, (place, size) in enumerate(seen):
        beside = [other for _, other in seen[max(0, number - 1) : number] + seen[number + 1 : number + 2]]
        if size == 0:
            blank = bool(frames[place].record.checks.get("blank"))
            words = "nothing is drawn on it" if blank else "no closed region was found in it"
            reasons[place] = Reason("character", 12, words)
        elif len(beside) == 2 and min(beside) > 0:
            usual = sum(beside) / 2
            if abs(size - usual) > CHARACTER_CHANGES * usual:
                more = "more" if size > usual else "less"
                words = f"{abs(size - usual) / usual:.0%} {more} is taken for the character than beside it"
                reasons[place] = Reason("character", 30, words)
    return reasons


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.00995 else f"{share:.1%}"


def _unusual(values: Sequence[float]) -> float:
    """The value above which one is out of the ordinary: the median and five times the median deviation from it."""
    if len(values) < 3:
        return 0.0
    middle = statistics.median(values)
    return middle + 5 * 1.4826 * statistics.median(abs(value - middle) for value in values)


RULES: tuple[Callable[[Sequence[Measured]], Mapping[int, Reason]], ...] = (
    _broken, _jumps, _restless, _off_palette, _other_shares, _unsure, _character,
)
