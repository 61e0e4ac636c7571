"""Steady colors: which drawings have a say in a frame's colors, and the asking of them.

The colors of a frame are decided together with the drawings around it, up to some number before and after. That is read
from names and pixels alone, so a frame comes out the same whatever part of a shot a process colors: drawings that it
was not asked to color are read and heard all the same.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

from colorcli.errors import DeviceError, WeightsError
from colorcli.model.machine import out_of_memory
from colorcli.prepare.frame import PreparedFrame
from colorcli.presets import Preset
from colorcli.shot.drawings import Drawing, Drawings
from colorcli.shot.engine import Colorizer
from colorcli.shot.manifest import sha256_of
from colorcli.shot.plan import FrameJob

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
        if job.source not in self._places:
            return []
        sequence, place = self._places[job.source]
        return [sequence[index] for index in around(lambda index: self._drawings.of(sequence[index]), place,
                                                    len(sequence), self._reach)]

    def digest(self, job: FrameJob) -> str:
        """SHA-256 of what is drawn around a frame."""
        found = [self._drawings.of(each) for each in self.around(job)]
        return sha256_of({"drawings": [[each.pixels, *each.masks] for each in found if each is not None]})


class Poll:
    """Asks the drawings around a frame; it remembers as many ballots as one frame needs."""

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

    def votes(
        self,
        frames: Sequence[tuple[FrameJob, PreparedFrame]],
        colorizer: Colorizer,
        reference: Any,
        preset: Preset,
    ) -> list[list[Any]]:
        """Give the ballot of each frame, and those of the drawings around it.

        Raises what the colorizer raises for the frame itself; another drawing that cannot be heard has no say.
        """
        def ballot_of(job: FrameJob) -> Any:
            return colorizer.ballot(self._prepare(job), reference, preset)

        asked: list[tuple[Future[Any], list[tuple[FrameJob, Future[Any]]]]] = []
        most = 0
        for job, frame in frames:
            own = self._ask(job, partial(colorizer.ballot, frame, reference, preset))
            others = [(each, self._ask(each, partial(ballot_of, each))) for each in self._neighbors.around(job)]
            asked.append((own, others))
            most = max(most, len(others) + 1)
        heard = [[own.result(), *(_heard(job, ballot) for job, ballot in others)] for own, others in asked]
        while len(self._ballots) > max(self._kept, most):
            self._ballots.popitem(last=False)
        return heard

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
