"""Timelines of a review, read again by OpenTimelineIO: every picture that it names is there."""

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from colorcli.review.pictures import Album
from colorcli.review.reviewed import review_shot
from colorcli.review.timeline import write_timeline
from tests.review.studio import BLUE, RED, colored_shot
from tests.shot.studio import color, draw, draw_key

otio = pytest.importorskip("opentimelineio", reason="timelines need OpenTimelineIO (extra review)")


def clips(path: Path) -> list[Any]:
    return list(otio.adapters.read_from_file(str(path)).find_clips())


def pictures(reference: Any) -> list[Path]:
    """The files that an image sequence names."""
    urls = [reference.target_url_for_image_number(number) for number in range(reference.number_of_images_in_sequence())]
    return [Path(unquote(urlparse(url).path)) for url in urls]


def timeline_of(out: Path, path: Path, rate: float = 24.0) -> list[Any]:
    write_timeline(path, [review_shot(out, Album())], rate=rate, name="edit")
    return clips(path)


def test_a_shot_is_a_clip_of_its_colored_frames_with_the_drawings_beside_them(tmp_path: Path) -> None:
    out = colored_shot(tmp_path / "with space", [RED, BLUE, RED])
    (clip,) = timeline_of(out, tmp_path / "a.otio")
    assert (clip.name, clip.duration().to_frames()) == ("sc", 3)
    media = clip.media_references()
    assert [path.name for path in pictures(media["color"])] == ["sc.0001.png", "sc.0002.png", "sc.0003.png"]
    assert clip.active_media_reference_key == "color"
    for reference in media.values():
        assert all(path.is_file() for path in pictures(reference))
    assert {path.parent.name for path in pictures(media["line"])} == {"sc"}
    assert clip.metadata["colorcli"]["models"][0]["license"] == "Apache-2.0"


def test_drawings_on_twos_are_held_for_two_frames(tmp_path: Path) -> None:
    out = colored_shot(tmp_path, [RED] * 3, numbers=[11, 13, 15])
    (clip,) = timeline_of(out, tmp_path / "a.otio", rate=25)
    reference = clip.media_reference
    assert (reference.start_frame, reference.frame_step, reference.rate) == (11, 2, 25)
    assert clip.duration().to_frames() == 6
    assert [path.name for path in pictures(reference)] == ["sc.0011.png", "sc.0013.png", "sc.0015.png"]


def test_a_gap_holds_the_frame_before_and_a_leap_is_another_clip(tmp_path: Path) -> None:
    out = colored_shot(tmp_path, [RED] * 5, numbers=[1, 2, 4, 1001, 1002])
    one, other = timeline_of(out, tmp_path / "a.otio")
    assert one.duration().to_frames() == 4
    assert one.media_reference.missing_frame_policy == otio.schema.ImageSequenceReference.MissingFramePolicy.hold
    assert (other.media_reference.start_frame, other.duration().to_frames()) == (1001, 2)


@pytest.mark.parametrize("name", ["{}.png", "a#b%20c.{}.png", "ü {:03d}.png", "w-{:04d}.png", "w.-{:04d}.png"])
def test_names_as_people_give_them(tmp_path: Path, name: str) -> None:
    for number in (8, 9, 10):
        draw(tmp_path / "shot" / name.format(number), number)
    draw_key(tmp_path / "key.png")
    out = color(tmp_path / "shot", out=tmp_path / "out").plans[0].out
    found = []
    for clip in timeline_of(out, tmp_path / "a.otio"):
        reference = clip.media_reference
        sequence = isinstance(reference, otio.schema.ImageSequenceReference)
        found += pictures(reference) if sequence else [Path(unquote(urlparse(reference.target_url).path))]
    assert sorted(path.name for path in found) == sorted(name.format(number) for number in (8, 9, 10))
    assert all(path.is_file() for path in found)
