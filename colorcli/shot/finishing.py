"""Finishing the frames of a shot: what was colored is written into OUT and recorded, as is what was only copied."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorcli.files import open_plain
from colorcli.finish.doubts import Doubts, doubts_in, guessed_in
from colorcli.finish.finish import FrameParts, frame_parts, lay_together
from colorcli.finish.layers import layered_frame
from colorcli.images import format_named, write_picture
from colorcli.prepare.frame import PreparedFrame
from colorcli.prepare.key import PreparedKey
from colorcli.prepare.palette_file import hex_color
from colorcli.presets import Preset
from colorcli.shot.coloring import Ready
from colorcli.shot.engine import Engine
from colorcli.shot.layer_files import LAYERS_FOLDER, copy_layers, is_flattened, layer_files, write_layers
from colorcli.shot.looking import Look
from colorcli.shot.manifest import FrameRecord, UnsureRegion, output_error, write_atomically
from colorcli.shot.plan import FrameJob
from colorcli.shot.provenance import picture_notes
from colorcli.shot.records import Records
from colorcli.shot.stamps import new_digest

Float = NDArray[np.float32]

MOST_UNSURE = 12   # regions of a frame that are listed; all are counted


class Finisher:
    """Writes the pictures of one shot. Any thread may call it.

    Each frame is recorded here, and not when the calling thread has time: it may be coloring for a minute, and be
    killed meanwhile.
    """

    def __init__(self, out: Path, engine: Engine, records: Records, key: Callable[[], PreparedKey]) -> None:
        """key: gives the key that the frames were colored from."""
        self._out, self._engine, self._records, self._key = out, engine, records, key

    def finish(self, ready: Ready, layer: Float) -> FrameRecord:
        """Lay the lines over the color and write the frame. Raises FrameError, OutputError."""
        clock = time.monotonic()
        look, prepared, preset = ready.look, ready.prepared, self._engine.preset
        assert look.picture is not None
        key, file_format = self._key(), format_named(preset.output.format, look.picture.format)
        notes = picture_notes((self._engine.model, *self._engine.network_entries), look.record.fingerprint)
        files = layer_files(look.job.output.name, preset)
        if files:
            layered = layered_frame(layer, prepared, key, preset, is_flattened(file_format))
            write_layers(self._out, files, layered, file_format, notes)
            color, alpha, parts = layered.color, layered.alpha, layered.parts
        else:
            parts = frame_parts(layer, prepared, key, preset)
            color, alpha = lay_together(parts, prepared, preset)
        doubts = _doubts(ready, parts, color, key, preset)
        write_picture(look.job.output, color, alpha, file_format, notes)
        digest, stamp = new_digest(look.job.output)
        seconds = (look.record.seconds or 0.0) + ready.seconds + time.monotonic() - clock
        record = look.record.model_copy(
            update={
                "status": "written",
                "output_sha256": digest,
                "output_stamp": stamp,
                **self._layers_made(look.job),
                "seconds": round(seconds, 3),
                "checks": _checks(prepared) | _doubt_checks(doubts),
                "unsure": _unsure(doubts),
            }
        )
        return self._records.add(record)

    def copy(self, look: Look, leader: FrameRecord) -> FrameRecord:
        """Give a held drawing the picture of its leader. Raises OutputError."""
        clock = time.monotonic()
        assert leader.output is not None
        source = self._out / leader.output
        try:
            with open_plain(source) as file:
                data = file.read()
        except OSError as error:
            raise output_error(source, error) from error
        copy_layers(self._out, leader.output, look.job.output.name, self._engine.preset)
        write_atomically(look.job.output, data)
        digest, stamp = new_digest(look.job.output)
        record = look.record.model_copy(
            update={
                "status": "held",
                "held_from": leader.held_from or leader.output,
                # Of what was made, which is not what was planned after a failure.
                **{name: getattr(leader, name) for name in ("fingerprint", "before_sha256", "around_sha256")},
                "output_sha256": digest,
                "output_stamp": stamp,
                **self._layers_made(look.job),
                "seconds": round((look.record.seconds or 0.0) + time.monotonic() - clock, 3),
                "checks": leader.checks,
                "unsure": leader.unsure,
            }
        )
        return self._records.add(record)

    def keep_of_crew(self, begun: FrameRecord, record: FrameRecord) -> FrameRecord:
        """Keep the record of a frame that was made elsewhere, with how this process knows the drawing again."""
        if (record.source_sha256, record.masks_sha256) == (begun.source_sha256, begun.masks_sha256):
            stamps = {"source_stamp": begun.source_stamp, "masks_stamps": begun.masks_stamps}
            record = record.model_copy(update=stamps)
        return self._records.add(record)

    def _layers_made(self, job: FrameJob) -> dict[str, Any]:
        """What the record says of the layers that have just been written. Raises OutputError."""
        files = layer_files(job.output.name, self._engine.preset)
        try:
            made = {file.path: new_digest(self._out / file.path) for file in files}
        except OSError as error:
            raise output_error(self._out / LAYERS_FOLDER, error) from error
        return {
            "outputs": {path: digest for path, (digest, _) in made.items()},
            "outputs_stamps": {path: stamp for path, (_, stamp) in made.items() if stamp is not None},
            "layers": {file.path: file.names for file in files},
        }


def _checks(prepared: PreparedFrame) -> dict[str, float | bool | str]:
    """What a person would want to know of a frame without opening it."""
    ink = float(prepared.lines.ink.mean())
    return {
        "ink": round(ink, 5),                                # share of the frame that is line
        "character": round(float(prepared.mask.mean()), 5),  # share of the frame that is character
        "blank": ink == 0.0,
    }


def _doubts(ready: Ready, parts: FrameParts, color: Float, key: PreparedKey, preset: Preset) -> Doubts | None:
    """Find what a person should look at in a finished frame, (H, W, 3); None: it was not asked for, or cannot be told.
    """
    if preset.checks.unsure_below == 0:
        return None
    if preset.sampling.start == "match":
        return None if ready.evidence is None else doubts_in(ready.evidence, color, key, preset)
    return guessed_in(parts, color, preset)


def _doubt_checks(doubts: Doubts | None) -> dict[str, float | bool | str]:
    """How many regions are unsure, and their share of the area of all; nothing where that cannot be told."""
    return {} if doubts is None else {"unsure": len(doubts.regions), "unsure_area": round(doubts.share, 4)}


def _unsure(doubts: Doubts | None) -> tuple[UnsureRegion, ...]:
    """The largest of the regions that a person should look at."""
    return tuple(
        UnsureRegion(
            box=doubt.box,
            area=doubt.area,
            color=hex_color(doubt.color),
            other=None if doubt.other is None else hex_color(doubt.other),
            sure=None if doubt.sure is None else round(doubt.sure, 3),
        )
        for doubt in (doubts.regions[:MOST_UNSURE] if doubts is not None else ())
    )
