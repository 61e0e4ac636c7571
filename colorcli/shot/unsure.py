"""The regions of a shot that a person should look at, from the records of its frames."""

from collections.abc import Iterable
from pathlib import Path

from colorcli.shot.manifest import Entry, FrameRecord, UnsureRegion


class UnsureFrame(Entry):
    """A frame with regions whose color may well be another one."""

    out: str                            # the folder of its picture
    shot: str
    frame: str
    output: str                         # file name in there
    count: int                          # of all such regions; the largest are listed
    area: float                         # their share of the area of all regions, 0..1
    regions: tuple[UnsureRegion, ...]


def unsure_frames(
    out: Path, shot: str, records: Iterable[FrameRecord], below: float | None = None
) -> list[UnsureFrame]:
    """List the frames of a shot that have such regions, in order; of a hold the drawing that was colored.

    below: only regions that are less sure; None: all that were told when the frames were colored.
    """
    found = []
    for record in records:
        regions = tuple(
            region for region in record.unsure
            if below is None or (region.sure is not None and region.sure < below)
        )
        if not record.is_unsure or not regions:
            continue
        found.append(
            UnsureFrame(
                out=str(out),
                shot=shot,
                frame=record.frame,
                output=record.output or "",
                count=unsure_count(record),
                area=record.unsure_share or 0.0,
                regions=regions,
            )
        )
    return found


def unsure_count(record: FrameRecord) -> int:
    """Give how many regions are unsure; the largest of them are listed in the record."""
    count = record.checks.get("unsure")
    return max(count, len(record.unsure)) if isinstance(count, int) else len(record.unsure)
