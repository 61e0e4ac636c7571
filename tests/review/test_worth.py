"""Which frames are to be looked at first: the odd one and not its neighbors, in the order of what is worst."""

import numpy as np
import pytest

from colorcli.prepare.regions import Regions
from colorcli.review.measure import Change, Jump, Look
from colorcli.review.worth import Measured, worth_a_look
from colorcli.shot.manifest import FrameRecord

USE = np.array([0.5, 0.3, 0.2], np.float32)


def record(number: int, **known: object) -> FrameRecord:
    given = {"frame": f"sc.{number:04d}", "number": number, "status": "written", "output": "a.png"} | known
    return FrameRecord.model_validate(given)


def look(character_px: int = 1000, distance: float = 0.1, use: np.ndarray = USE) -> Look:
    nothing = Regions(np.zeros((0, 0), np.int32), np.zeros((0, 0), np.float32), np.zeros(1, np.int64))
    return Look(nothing, np.zeros((0, 0, 3), np.float32), np.zeros((1, 3), np.float32), character_px, distance, use, ())


def change(jumped: float = 0.0, flicker: float = 0.05) -> Change:
    jumps = (Jump((0, 0, 0.1, 0.1), "#ff0000", "#0000ff"),) if jumped else ()
    return Change(flicker, 0.9, jumped, jumps)


def shot(*changes: Change | None) -> list[Measured]:
    """Frames from 1, each with its change against the one before."""
    return [Measured(record(place + 1), look=look(), change=one) for place, one in enumerate(changes)]


def steady(count: int = 12) -> list[Measured]:
    return shot(None, *[change() for _ in range(count - 1)])


def with_frame(frames: list[Measured], place: int, frame: Measured) -> list[Measured]:
    return [*frames[:place], frame, *frames[place + 1 :]]


def test_a_steady_shot_has_none() -> None:
    assert worth_a_look(steady()) == {}


def test_a_flash_of_one_frame_names_that_frame_and_no_neighbor() -> None:
    found = worth_a_look(shot(None, change(), change(0.2), change(0.2), change(), change()))
    assert list(found) == [2]
    (reason,) = found[2]
    assert reason.words == "20% of the character has another color than both neighbors"
    assert reason.colors == ("#ff0000", "#0000ff")


def test_a_button_of_half_a_percent_is_told_as_that() -> None:
    (reason,) = worth_a_look(shot(None, change(), change(0.005), change()))[2]
    assert reason.words == "0.5% of the character has another color than the frame before"


def unsure(share: float, **known: object) -> FrameRecord:
    region = {"box": (1, 2, 3, 4), "area": 12, "color": "#ff0000", "sure": 0.4}
    return record(3, checks={"unsure": 4, "unsure_area": share}, unsure=[region], **known)


@pytest.mark.parametrize(("share", "words"), [(0.12, ["unsure: 4 regions, 12% of the figure"]), (0.004, [])])
def test_a_frame_that_was_not_sure_of_a_part_of_the_figure_says_so(share: float, words: list[str]) -> None:
    found = worth_a_look(with_frame(steady(), 2, Measured(unsure(share), look=look(), change=change())))
    assert [reason.words for reason in found.get(2, [])] == words


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        ({"unsure": "many", "unsure_area": 0.12}, ["unsure: 1 region, 12% of the figure"]),
        ({"unsure": 4, "unsure_area": "much"}, []),
        ({"unsure": 4, "unsure_area": float("nan")}, []),
    ],
)
def test_what_somebody_wrote_into_a_record_by_hand_stops_no_review(checks: dict[str, object], words: list[str]) -> None:
    told = unsure(0.12).model_copy(update={"checks": checks})
    found = worth_a_look(with_frame(steady(), 2, Measured(told, look=look(), change=change())))
    assert [reason.words for reason in found.get(2, [])] == words
    assert told.unsure_share in (0.12, None)


def test_of_a_hold_only_the_drawing_that_was_colored_is_unsure() -> None:
    held = unsure(0.12, held_from="sc.0002.png")
    assert worth_a_look(with_frame(steady(), 2, Measured(held, look=look(), change=change()))) == {}


def test_a_color_that_stays_another_is_told_where_it_changes() -> None:
    found = worth_a_look(shot(None, change(), change(), change(0.3), change(), change()))
    assert list(found) == [3]
    assert "than the frame before" in found[3][0].words


def test_a_first_frame_of_another_color_is_told_against_the_second() -> None:
    # From the pictures alone nobody knows which of the two is wrong: the change is told where it arrives.
    assert list(worth_a_look(shot(None, change(0.3), change(), change()))) == [1]


def test_a_flash_of_a_button_before_a_large_change_is_not_mixed_up_with_it() -> None:
    found = worth_a_look(shot(None, change(), change(0.01), change(0.4), change(), change()))
    assert {place: reason.words[:3] for place, (reason,) in found.items()} == {3: "40%", 2: "1% "}


def test_two_flashes_are_two_frames_the_larger_first() -> None:
    frames = shot(None, change(0.05), change(0.05), change(), change(0.4), change(0.4), change())
    assert list(worth_a_look(frames)) == [4, 1]


def test_a_failed_frame_comes_before_everything() -> None:
    failure = {"kind": "frame", "message": "sc.0004.png is damaged", "hint": "save it again"}
    broken = Measured(record(4, status="failed", error=failure, checks={"older_picture": True}))
    found = worth_a_look(with_frame(shot(None, change(), change(0.9), None, change()), 3, broken))
    assert list(found) == [3, 2]
    assert found[3][0].words == "failed: sc.0004.png is damaged; the picture in the folder is an older one"


def test_a_file_that_somebody_changed_is_named() -> None:
    frames = with_frame(steady(), 5, Measured(record(6), "a.png is not the file that was written", look(), change()))
    assert [reason.kind for reason in worth_a_look(frames)[5]] == ["file"]


def test_restless_color_counts_against_what_the_shot_usually_does() -> None:
    frames = with_frame(steady(), 4, Measured(record(5), look=look(), change=change(flicker=3.0)))
    assert [reason.kind for reason in worth_a_look(frames)[4]] == ["flicker"]
    everywhere = [Measured(record(place), look=look(), change=change(flicker=3.0)) for place in range(12)]
    assert worth_a_look(everywhere) == {}


def test_colors_away_from_the_key_are_named_with_one_of_them() -> None:
    strange = look(distance=9.0)
    strange = Look(**(strange.__dict__ | {"foreign": (("#00ff00", 0.25),)}))
    found = worth_a_look(with_frame(steady(), 3, Measured(record(4), look=strange, change=change())))
    assert found[3][0].words == (
        "colors are 9.0 CIEDE2000 from the palette on the mean, such as #00ff00 on 25.0% of the character"
    )


def test_other_shares_of_the_keys_colors_are_found_though_each_is_one_of_them() -> None:
    swapped = look(use=np.array([0.1, 0.7, 0.2], np.float32))
    found = worth_a_look(with_frame(steady(), 6, Measured(record(7), look=swapped, change=change())))
    assert found[6][0].words.startswith("40% of the character is painted with other colors")


@pytest.mark.parametrize(("pixels", "said"), [(0, "no closed region"), (100, "90% less"), (3000, "200% more")])
def test_a_character_that_is_lost_or_swallows_the_paper_is_found(pixels: int, said: str) -> None:
    found = worth_a_look(with_frame(steady(), 6, Measured(record(7), look=look(pixels), change=change())))
    assert said in found[6][0].words
