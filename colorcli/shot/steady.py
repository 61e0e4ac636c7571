"""Steady colors: which drawings have a say in a frame's colors, and the asking of them.

The colors of a frame are decided together with the drawings around it, up to some number before and after. That is read
from names and pixels alone, so a frame comes out the same whatever part of a shot a process colors: drawings that it
was not asked to color are read and heard all the same.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from colorcli.errors import DeviceError, WeightsError
from colorcli.model.machine import out_of_memory
from colorcli.prepare.frame import PreparedFrame
from colorcli.presets import Preset
from colorcli.shot.drawings import Drawing, Drawings
from colorcli.shot.engine import Colorizer
from colorcli.shot.manifest import sha256_of
from colorcli.shot.plan import FrameJob

LINKED_APART = 6   # drawings that are no further apart are linked; a vote goes on from link to link

log = logging.getLogger(__name__)


def around(drawing_of: Callable[[int], Hashable | None], place: int, count: int, reach: int) -> list[int]:
    """Give the places of up to `reach` drawings before and after one, of `count` in a row; of a hold the nearest frame.

    drawing_of: says what is drawn at a place; None: nothing that can be read.
    """

    def one_way(places: Iterable[int]) -> list[int]:
        found: list[int] = []
        last = drawing_of(place)
        for other in places:
            drawing = drawing_of(other)
            if drawing is None or drawing == last:
                continue
            if len(found) == reach:
                break
            found.append(other)
            last = drawing
        return found

    return one_way(range(place - 1, -1, -1))[::-1] + one_way(range(place + 1, count))


class Neighbors:
    """Which drawings lie around each frame of a shot. Any thread may ask."""

    def __init__(self, sequences: Sequence[Sequence[FrameJob]], drawings: Drawings, reach: int) -> None:
        """sequences: all numbered frames of the shot in order. reach: how many drawings before and after count."""
        self._drawings, self._reach = drawings, reach
        self._places = {
            job.source: (sequence, place) for sequence in sequences for place, job in enumerate(sequence)
        }

    def around(self, job: FrameJob) -> list[FrameJob]:
        """The drawings around a frame, in order, without its own; of a hold one frame alone.

        A frame that cannot be read has no say. A frame without a number has nothing around it.
        """
        before, after = self.before_and_after(job)
        return [*before, *after]

    def before_and_after(self, job: FrameJob) -> tuple[list[FrameJob], list[FrameJob]]:
        """The drawings before a frame, and those after it."""
        if job.source not in self._places:
            return [], []
        sequence, own = self._places[job.source]
        places = around(lambda place: self._drawings.of(sequence[place]), own, len(sequence), self._reach)
        before, after = ([sequence[place] for place in places if (place < own) == early] for early in (True, False))
        return before, after

    def digest(self, job: FrameJob) -> str:
        """SHA-256 of what is drawn around a frame."""
        found = [self._drawings.of(each) for each in self.around(job)]
        return sha256_of({"drawings": [[each.pixels, *each.masks] for each in found if each is not None]})


@dataclass(frozen=True)
class Heard:
    """What is said on the colors of one frame."""

    ballots: Sequence[Any]                  # its own and those of the drawings around it, in order; None: no say
    own: int                                # the place of its own
    links: Mapping[tuple[int, int], Any]    # what is the same in the drawings at two places, the earlier one first


def linked(count: int) -> list[tuple[int, int]]:
    """Give the places of the drawings, of `count` in a row, that are linked: each with those that are near."""
    return [(one, other) for other in range(count) for one in range(max(0, other - LINKED_APART), other)]


def decide_all(
    colorizer: Colorizer, ballots: Sequence[Any], drawing_of: Callable[[int], Hashable], reach: int
) -> list[Any]:
    """Decide the colors of every frame of a shot whose ballots are all there, as `Poll` and `decide` do for one frame.

    drawing_of: says what is drawn at a place.
    """
    link = cache(lambda one, other: colorizer.link(ballots[one], ballots[other]))
    decided = []
    for place in range(len(ballots)):
        heard = sorted([place, *around(drawing_of, place, len(ballots), reach)])
        links = {(one, other): link(heard[one], heard[other]) for one, other in linked(len(heard))}
        decided.append(colorizer.decide([ballots[number] for number in heard], heard.index(place), links))
    return decided


class Poll:
    """Asks the drawings around a frame; it remembers as many ballots as one frame needs, and the links between them."""

    def __init__(
        self,
        neighbors: Neighbors,
        drawings: Drawings,
        prepare: Callable[[FrameJob], PreparedFrame],
        threads: Executor,
        kept: int,
    ) -> None:
        """prepare: reads a frame and makes it ready; raises FrameError. threads: in which drawings are asked. kept: how
        many ballots."""
        self._neighbors, self._drawings, self._prepare = neighbors, drawings, prepare
        self._threads, self._kept = threads, kept
        self._ballots: OrderedDict[Drawing, Future[Any]] = OrderedDict()
        self._links: dict[tuple[Drawing, Drawing], Future[Any]] = {}

    def hear(
        self,
        frames: Sequence[tuple[FrameJob, PreparedFrame]],
        colorizer: Colorizer,
        reference: Any,
        preset: Preset,
    ) -> list[Heard]:
        """Ask each frame and the drawings around it.

        Raises what the colorizer raises for the frame itself; another drawing that cannot be heard has no say.
        """
        def ballot_of(job: FrameJob) -> Any:
            return colorizer.ballot(self._prepare(job), reference, preset)

        asked: list[tuple[list[FrameJob], list[Future[Any]], int]] = []
        for own, frame in frames:
            before, after = self._neighbors.before_and_after(own)
            jobs = [*before, own, *after]
            own_ballot = partial(colorizer.ballot, frame, reference, preset)
            said = [self._ask(job, own_ballot if job is own else partial(ballot_of, job)) for job in jobs]
            asked.append((jobs, said, len(before)))
        heard: list[Heard] = []
        for jobs, said, place in asked:
            ballots = [
                ballot.result() if number == place else _heard(job, ballot)
                for number, (job, ballot) in enumerate(zip(jobs, said, strict=True))
            ]
            links = {
                (one, other): self._link(jobs[one], ballots[one], jobs[other], ballots[other], colorizer)
                for one, other in linked(len(jobs)) if ballots[one] is not None and ballots[other] is not None
            }
            heard.append(Heard(ballots, place, {places: link.result() for places, link in links.items()}))
        self._forget(max(self._kept, max(len(jobs) for jobs, _, _ in asked)))
        return heard

    def _forget(self, kept: int) -> None:
        while len(self._ballots) > kept:
            self._ballots.popitem(last=False)
        self._links = {
            drawings: link for drawings, link in self._links.items()
            if all(drawing in self._ballots for drawing in drawings)
        }

    def _link(self, one: FrameJob, says: Any, other: FrameJob, other_says: Any, colorizer: Colorizer) -> Future[Any]:
        """Give what is the same in two drawings, on its way if it was not asked before."""
        drawings = self._drawings.of(one), self._drawings.of(other)
        assert drawings[0] is not None and drawings[1] is not None, "those that cannot be read are not asked"
        known = drawings[0], drawings[1]
        if known not in self._links:
            self._links[known] = self._threads.submit(colorizer.link, says, other_says)
        return self._links[known]

    def _ask(self, job: FrameJob, ballot: Callable[[], Any]) -> Future[Any]:
        """Give the ballot of a drawing, on its way if it was not asked before."""
        drawing = self._drawings.of(job)
        assert drawing is not None, "those that cannot be read are not asked"
        if drawing not in self._ballots:
            self._ballots[drawing] = self._threads.submit(ballot)
        self._ballots.move_to_end(drawing)
        return self._ballots[drawing]


def _heard(job: FrameJob, ballot: Future[Any]) -> Any:
    try:
        return ballot.result()
    except (DeviceError, WeightsError):
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        log.warning("%s has no say in the colors of the frames around it: %s", job.name, error)
        return None
