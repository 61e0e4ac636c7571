"""Coloring the frames of a shot that are ready for it, several at a time, with what the colorizer makes of the key."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorcli.errors import DeviceError, FrameError, KeyImageError
from colorcli.finish.repaint import repaint
from colorcli.model.evidence import Evidence
from colorcli.model.machine import more_room, out_of_memory, too_large
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import PreparedKey, prepare_key
from colorcli.prepare.palette_file import hex_color
from colorcli.shot.engine import Colorizer, Engine, fingerprint
from colorcli.shot.keys import ShotKey
from colorcli.shot.looking import Look, Looker
from colorcli.shot.plan import ShotPlan
from colorcli.shot.steady import Poll
from colorcli.shot.ties import Ties
from colorcli.shot.warm import WarmStarter

Float = NDArray[np.float32]

KEPT_REFERENCES = 4   # keys as the colorizer has read them, which lie on its device


@dataclass(frozen=True)
class Ready:
    """A frame that waits for its color, or has it."""

    look: Look
    prepared: PreparedFrame
    seconds: float
    evidence: Evidence | None = None   # what its colors were chosen by, once it has them


class Coloring:
    """Makes the frames of one shot ready, and colors them."""

    def __init__(
        self,
        plan: ShotPlan,
        engine: Engine,
        key: ShotKey,
        ties: Ties,
        looker: Looker,
        threads: Executor,
        warn: Callable[[str], None],
    ) -> None:
        """threads: in which frames are made ready. warn: is told what stops nothing."""
        self._engine, self._key = engine, key
        self._palette_file = plan.palette_file
        self._threads, self._warn = threads, warn
        self._prepared_key: Future[PreparedKey] | None = None
        self._warm: WarmStarter | None = None
        self._poll: Poll | None = None
        if ties.chains is not None and ties.drawings is not None:
            self._warm = WarmStarter(ties.chains, ties.drawings, looker.lead)
        if ties.neighbors is not None and ties.drawings is not None:
            kept = 2 * engine.preset.steady.reach + 2
            self._poll = Poll(ties.neighbors, ties.drawings, looker.lead, threads, kept)

    def prepared_key(self) -> PreparedKey:
        """The key, made ready; any thread may ask once a frame is. Raises FrameError."""
        assert self._prepared_key is not None, "the first frame comes before"
        return self._prepared_key.result()

    def prepare(self, look: Look) -> Future[Ready]:
        """Make a frame ready, and before the first one the key, without waiting."""
        if self._prepared_key is None:
            self._prepared_key = self._threads.submit(self._prepare_key)
        return self._threads.submit(self._prepare, look)

    def color(self, batch: Sequence[Ready]) -> Iterator[tuple[Ready, Float | Exception]]:
        """Color frames together; in halves where memory runs out, each on its own where one of them is at fault.

        Gives each frame as it comes, with its layer or with what is wrong with it. Raises DeviceError, KeyImageError.
        """
        colorizer = self._engine.loader.get()
        reference = self._reference(colorizer)
        clock = time.monotonic()
        short = False
        made = batch
        try:
            if self._warm is not None:
                layers, made = self._color_warm(batch, self._warm, reference)
            elif self._engine.preset.sampling.start == "match":
                layers, made = self._color_by_match(batch, reference)
            else:
                layers = colorizer.color([ready.prepared for ready in batch], reference, self._engine.preset)
            assert len(layers) == len(batch), (len(layers), len(batch))
        except DeviceError:
            raise
        except Exception as error:
            short = out_of_memory(error)
            if len(batch) == 1 and short and not isinstance(error, MemoryError):
                canvas = batch[0].prepared.canvas
                used = colorizer.describe()
                raise too_large(
                    canvas.source, canvas.size, used.get("device", ""), used.get("memory", "full")
                ) from error
            if len(batch) == 1:
                yield batch[0], error
                return
            layers = []
        # Behind the handler, where the failed attempt and its tensors are gone.
        if short:
            self._smaller_batch(len(batch))
        if not layers:
            rest = list(batch)
            while rest:
                few = self._engine.batch.frames if short else 1   # it may become less on the way
                yield from self.color(rest[:few])
                del rest[:few]
            return
        seconds = (time.monotonic() - clock) / len(batch)
        for ready, layer in zip(made, layers, strict=True):
            yield replace(ready, seconds=ready.seconds + seconds), layer

    def _prepare_key(self) -> PreparedKey:
        key, engine = self._key, self._engine
        return prepare_key(
            key.picture,
            engine.preset,
            engine.variant,
            key.masks,
            engine.networks,
            key.background,
            key.background_masks,
            key.swatches,
            key.each,
        )

    def _prepare(self, look: Look) -> Ready:
        clock = time.monotonic()
        assert look.picture is not None
        engine = self._engine
        prepared = prepare_frame(look.picture, engine.preset, engine.variant, look.masks, engine.networks)
        return Ready(look, prepared, time.monotonic() - clock)

    def _color_warm(
        self, batch: Sequence[Ready], warm: WarmStarter, reference: Any
    ) -> tuple[Sequence[Float], Sequence[Ready]]:
        """Color a frame from where the one before it ended; what it was begun from goes into its record."""
        (ready,) = batch
        job, record = ready.look.job, ready.look.record
        layer, before = warm.color(job, ready.prepared, self._engine.loader.get(), reference, self._engine.preset)
        assert record.pixels_sha256 is not None and record.format is not None
        print_ = fingerprint(
            self._engine.settings, self._key.digest, record.pixels_sha256, record.masks_sha256, record.format, before
        )
        record = record.model_copy(update={"fingerprint": print_, "before_sha256": before})
        return [layer], [replace(ready, look=replace(ready.look, record=record))]

    def _color_by_match(self, batch: Sequence[Ready], reference: Any) -> tuple[Sequence[Float], Sequence[Ready]]:
        """Color frames from what their regions are like in the key; for `steady` the drawings around have a say."""
        colorizer, preset = self._engine.loader.get(), self._engine.preset
        frames = [ready.prepared for ready in batch]
        if self._poll is None:
            layers, ballots = colorizer.color_and_tell(frames, reference, preset)
        else:
            jobs = [(ready.look.job, ready.prepared) for ready in batch]
            heard = self._poll.hear(jobs, colorizer, reference, preset)
            ballots = [colorizer.decide(each.ballots, each.own, each.links) for each in heard]
            layers = colorizer.color(frames, reference, preset, ballots)
        made = [
            replace(ready, evidence=colorizer.evidence(ready.prepared, ballot, reference))
            for ready, ballot in zip(batch, ballots, strict=True)
        ]
        return layers, made

    def _smaller_batch(self, tried: int) -> None:
        """Color fewer frames together for the rest of the run; said once."""
        batch = self._engine.batch
        first = not batch.notes
        if tried // 2 < batch.frames:
            batch.halve(tried)
        if first:
            self._warn(f"there is no memory for {tried} frames at once; going on with {batch.frames}")

    def _reference(self, colorizer: Colorizer) -> Any:
        """What the colorizer makes of the key: once for each key of a run."""
        references = self._engine.references
        if self._key.digest not in references:
            while len(references) >= KEPT_REFERENCES:
                del references[next(iter(references))]
            try:
                key = self.prepared_key()
                references[self._key.digest] = colorizer.encode_reference(key, self._engine.preset)
                self._tell_colors_without_swatch(key)
            except FrameError as error:
                raise KeyImageError(f"the key cannot be used: {error.message}", hint=error.hint) from error
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                used = colorizer.describe()
                hint = more_room(used.get("device", ""), used.get("memory", "full"))
                raise DeviceError("there is no memory to read the key", hint=hint) from error
        return references[self._key.digest]

    def _tell_colors_without_swatch(self, key: PreparedKey) -> None:
        """Warn of colors that are none of the production's palette: it has none like them, or no shadow for them.

        Of a swap, which names only what changes: warn of the colors that it would change if the key had them.
        """
        settings = self._engine.preset.finish
        if key.swatches is None or self._palette_file is None:
            return
        palette = key.palette.colors
        painted = repaint(palette, key.shadows, key.swatches, settings.palette_reach)
        if key.swatches.swapped is not None:
            if painted.unused:
                self._warn(
                    f"{self._palette_file.name} changes colors that the key does not have within "
                    f"{settings.palette_reach:g} CIEDE2000: {_listed(key.swatches.colors[list(painted.unused)])}"
                )
        elif alone := painted.that("stays"):
            self._warn(
                f"{self._palette_file.name} has nothing within {settings.palette_reach:g} CIEDE2000 of {len(alone)} of "
                f"the key's {len(palette)} colors, which stay: {_listed(palette[alone])}"
            )
        if shadows := painted.that("step"):
            self._warn(
                f"{self._palette_file.name} has no shadow for {len(shadows)} of the key's {len(palette)} colors, which "
                f"are made in step with their color: {_listed(painted.colors[shadows])}"
            )


def _listed(colors: Float) -> str:
    """The first of some colors (N, 3)."""
    return ", ".join(hex_color(color) for color in colors[:6]) + (", ..." if len(colors) > 6 else "")
