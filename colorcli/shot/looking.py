"""Looking at the frames of a shot: what is drawn on them, and whether the pictures in OUT are what they should be.

All of it only reads. What a frame looks like depends on nothing but its own fingerprint.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import colorcli
from colorcli.errors import FrameError
from colorcli.images import Picture, format_named, picture_digest, read_picture
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.shot.drawings import Drawing
from colorcli.shot.engine import Engine, fingerprint
from colorcli.shot.keys import read_mask
from colorcli.shot.layer_files import are_recorded, layer_files
from colorcli.shot.manifest import THERE, FrameRecord, Stamp
from colorcli.shot.plan import FrameJob, ShotPlan
from colorcli.shot.records import Records
from colorcli.shot.stamps import FrameFiles, look_at, stamped_digest
from colorcli.shot.ties import Ties

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """A frame that was read, or found to be up to date."""

    job: FrameJob
    record: FrameRecord             # what is known of it so far
    picture: Picture | None = None  # None: up to date, a copy, or not needed any more
    masks: tuple[Float, ...] = ()
    copy: bool = False              # the file of an earlier frame, byte for byte: it was not decoded again
    known: FrameRecord | None = None  # what was recorded of it when it was read

    @property
    def is_up_to_date(self) -> bool:
        """Whether nothing is to be done."""
        return self.picture is None and not self.copy

    def without_pixels(self) -> "Look":
        """The same without its picture: a held drawing that waits needs only its names."""
        return replace(self, picture=None, masks=())


class Looker:
    """Looks at the frames of one shot. Any thread may ask."""

    def __init__(
        self,
        plan: ShotPlan,
        engine: Engine,
        key: str,
        records: Records,
        ties: Ties,
        *,
        finds_copies: bool = True,
    ) -> None:
        """key: its digest. finds_copies: a file that is like an earlier frame's is not decoded again."""
        self._plan, self._engine, self._key = plan, engine, key
        self._records, self._ties, self._finds_copies = records, ties, finds_copies
        self._places = {job.output: place for place, job in enumerate(plan.jobs)}
        self._decoded: dict[tuple[str, ...], FrameRecord] = {}  # file and masks -> the record of its first frame

    def look(self, job: FrameJob, decode: bool) -> Look:
        """Read a frame, unless its file, its settings and its result are as recorded.

        decode: also if its file is the same as that of an earlier frame. Raises FrameError.
        """
        clock = time.monotonic()
        record = self.begun(job)
        known, most = self._records.of(job), self._plan.request.max_pixels
        try:
            files = look_at(job, None if self._plan.request.thorough else known, most)
        except OSError as error:
            # read_picture knows the words for it.
            read_picture(job.source, most)
            raise FrameError(f"{job.source.name} cannot be read: {error.strerror}") from error
        source, masks = files.source, files.masks
        counts = known is not None and self._records.counts(known)
        if known is not None and known.source_sha256 == source and counts:
            kept = self._up_to_date(known, job, files)
            if kept is not None:
                return Look(job, kept)
        file = (source, *masks, job.source.suffix)
        copied = None if decode else self._copied(job, file, record.model_copy(update=files.recorded))
        if copied is not None:
            copied = copied.model_copy(update={"seconds": time.monotonic() - clock})
            return Look(job, copied, copy=True, known=known)
        picture = read_picture(job.source, most)
        mask_pictures = files.mask_pictures
        if mask_pictures is None:
            mask_pictures = tuple(read_picture(path, most) for path in job.masks)
        _check_masks(job, picture, mask_pictures)
        pixels = picture_digest(picture)
        if self._ties.drawings is not None:
            self._ties.drawings.see(job, Drawing(pixels, masks, picture.size))
        file_format = format_named(self._engine.preset.output.format, picture.format)
        format_text = f"{file_format.container}/{file_format.depth}"
        record = record.model_copy(
            update={
                **self._ties.digests(job),
                **files.recorded,
                "pixels_sha256": pixels,
                "format": format_text,
                "fingerprint": self._fingerprint(job, pixels, masks, format_text),
                "seconds": time.monotonic() - clock,
            }
        )
        # The file was saved again, but its picture is the same and so is the one that was made of it.
        if known is not None and known.fingerprint == record.fingerprint and counts:
            kept = self._up_to_date(known.model_copy(update={"source_sha256": source}), job, files)
            if kept is not None:
                return Look(job, kept)
        self._decoded[file] = record
        return Look(job, record, picture, tuple(read_mask(mask) for mask in mask_pictures), known=known)

    def begun(self, job: FrameJob) -> FrameRecord:
        """The record of a frame of which nothing is done yet."""
        return FrameRecord(
            frame=job.name,
            number=job.number,
            sequence=job.sequence,
            status="failed",
            source=job.source.name,
            output=job.output.name,
            tool=colorcli.__version__,
            settings_sha256=self._engine.settings,
            key_sha256=self._key,
            seed=self._engine.preset.sampling.seed,
        )

    def lead(self, job: FrameJob) -> PreparedFrame:
        """Make a frame ready that others depend on, and that is not colored now itself. Raises FrameError."""
        most = self._plan.request.max_pixels
        picture, masks = read_picture(job.source, most), [read_picture(path, most) for path in job.masks]
        _check_masks(job, picture, masks)
        engine = self._engine
        given = [read_mask(mask) for mask in masks]
        return prepare_frame(picture, engine.preset, engine.variant, given, engine.networks)

    def is_whole(self, record: FrameRecord) -> bool:
        """Whether the recorded picture is there and unchanged."""
        there = self._output(record)
        return there is not None and there[0] == record.output_sha256 and self._layers_there(record) is not None

    def _copied(self, job: FrameJob, file: tuple[str, ...], record: FrameRecord) -> FrameRecord | None:
        """The record of a frame whose file was decoded for an earlier one that is to look the same; None: decode it."""
        first = self._decoded.get(file) if self._finds_copies else None
        if first is None or self._places[job.output.with_name(first.output or "")] > self._places[job.output]:
            return None   # the earlier frame is decided first, and this one can only wait for such a one
        assert first.pixels_sha256 is not None and first.format is not None
        print_ = self._fingerprint(job, first.pixels_sha256, first.masks_sha256, first.format)
        same = ("pixels_sha256", "masks_sha256", "format", "before_sha256", "around_sha256", "fingerprint")
        found = record.model_copy(update={name: getattr(first, name) for name in same})
        return found if print_ == first.fingerprint else None

    def _up_to_date(self, known: FrameRecord, job: FrameJob, files: FrameFiles) -> FrameRecord | None:
        """The record to keep if the picture in OUT is the one that would be made now."""
        if known.status not in THERE or known.output != job.output.name or not known.pixels_sha256 or not known.format:
            return None
        wanted = self._fingerprint(job, known.pixels_sha256, files.masks, known.format)
        if known.fingerprint != wanted or known.output_sha256 is None:
            return None
        there = self._output(known)
        layers = self._layers_there(known)
        if there is None or there[0] != known.output_sha256 or layers is None:
            return None
        # Records of the first version, or changed by hand, do not say all of what the fingerprint holds.
        of_run = {"settings_sha256": self._engine.settings, "key_sha256": self._key}
        said = {**files.recorded, "output_stamp": there[1], **layers, **of_run}
        return known.model_copy(update={"status": "skipped", "chosen": "", **said, **self._ties.digests(job)})

    def _fingerprint(self, job: FrameJob, pixels: str, masks: Sequence[str], file_format: str) -> str:
        ties = self._ties.digests(job).values()
        return fingerprint(self._engine.settings, self._key, pixels, masks, file_format, *ties)

    def _layers_there(self, record: FrameRecord) -> dict[str, Any] | None:
        """The stamps of the layers that are wanted beside a frame, for its record; None: not all are as recorded."""
        wanted = layer_files(record.output or "", self._engine.preset)
        if not are_recorded(wanted, record):
            return None
        stamps = dict(record.outputs_stamps)
        for path in (file.path for file in wanted):
            digest, stamp = record.outputs[path], stamps.pop(path, None)
            try:
                known = None if self._plan.request.thorough else digest
                found, stamp = stamped_digest(self._plan.out / path, known, stamp)
            except OSError:
                return None
            if found != digest:
                return None
            stamps |= {} if stamp is None else {path: stamp}
        return {"outputs_stamps": stamps}

    def _output(self, record: FrameRecord) -> tuple[str, Stamp | None] | None:
        """The hash and the stamp of the picture that a record tells of; None: there is none."""
        known = None if self._plan.request.thorough else record.output_sha256
        if record.output is None:
            return None
        try:
            return stamped_digest(self._plan.out / record.output, known, record.output_stamp)
        except OSError:
            return None


def _check_masks(job: FrameJob, picture: Picture, masks: Sequence[Picture]) -> None:
    """Raise FrameError if a mask is not as large as its frame."""
    for path, mask in zip(job.masks, masks, strict=True):
        if mask.size != picture.size:
            raise FrameError(
                f"the mask {path} is {mask.size[0]}x{mask.size[1]}, "
                f"but {job.source.name} is {picture.size[0]}x{picture.size[1]}",
                hint="make the mask as large as the frame, or take it out of the folder",
            )
