"""Masks and lines by networks, and a background picture of its own: what the preparation makes of their answers."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from colorcli.errors import PresetError
from colorcli.prepare.frame import prepare_frame
from colorcli.prepare.key import PreparedKey, prepare_key
from colorcli.prepare.masks import snap_to_lines
from colorcli.presets import BackgroundSettings, CanvasSettings, LineSettings, MaskSettings, Preset, ReferenceSettings
from colorcli.variants import VARIANTS
from tests.prepare.drawn import figure, overlap, picture

MINI = VARIANTS["mini"]
Float = NDArray[np.float32]
BY_NETWORK = MaskSettings(source="network", network="drawing.onnx", key_network="key.onnx")


class Answers:
    """Networks that give one answer, and remember what they were shown."""

    def __init__(self, answer: Float) -> None:
        self.answer = answer
        self.shown: list[tuple[str, Float]] = []

    def frame_mask(self, line_art: Float) -> Float:
        self.shown.append(("frame_mask", line_art))
        return self.answer

    def key_mask(self, color: Float) -> Float:
        self.shown.append(("key_mask", color))
        return self.answer

    def lines(self, color: Float) -> Float:
        self.shown.append(("lines", color))
        return self.answer

    @property
    def asked(self) -> list[str]:
        return [name for name, _ in self.shown]


def rough(mask: Float, by: float) -> Float:
    """A mask as networks give it: `by` pixels too wide, its edge soft."""
    wide = cv2.dilate(mask, np.ones((2 * round(by) + 1,) * 2, np.uint8)) if by else mask
    return cv2.GaussianBlur(wide, (0, 0), 2)


# --- when a network is asked --------------------------------------------------------------------------------------


def test_a_network_sees_black_lines_on_white_paper_whatever_was_drawn() -> None:
    drawn = figure()
    networks = Answers(drawn.mask)
    light_on_dark = picture(drawn.ink)
    prepare_frame(light_on_dark, Preset(masks=BY_NETWORK), MINI, networks=networks)
    ((name, seen),) = networks.shown
    assert name == "frame_mask" and seen.shape == drawn.ink.shape
    assert np.median(seen) == 1 and seen[drawn.ink > 0.9].mean() < 0.1


def test_networks_that_no_setting_asks_for_are_not_asked() -> None:
    drawn = figure()
    networks = Answers(np.zeros_like(drawn.mask))
    frame = prepare_frame(picture(1 - drawn.ink), Preset(), MINI, networks=networks)
    key = prepare_key(picture(drawn.color), Preset(), MINI, networks=networks)
    assert networks.asked == []
    assert overlap(frame.mask, drawn.mask) > 0.95 and key.grown is None


def test_masks_from_files_come_before_the_network() -> None:
    drawn = figure()
    networks = Answers(np.zeros_like(drawn.mask))
    preset = Preset(masks=BY_NETWORK)
    frame = prepare_frame(picture(1 - drawn.ink), preset, MINI, [drawn.mask], networks)
    key = prepare_key(picture(drawn.color), preset, MINI, [drawn.mask], networks)
    assert networks.asked == []
    np.testing.assert_array_equal(frame.mask, drawn.mask)
    np.testing.assert_array_equal(key.mask, drawn.mask)


def test_with_a_network_for_keys_alone_frames_are_looked_at_as_ever() -> None:
    drawn = figure()
    networks = Answers(drawn.mask)
    for_keys = Preset(masks=MaskSettings(source="network", key_network="key.onnx"))
    frame = prepare_frame(picture(1 - drawn.ink), for_keys, MINI, networks=networks)
    usual = prepare_frame(picture(1 - drawn.ink), Preset(), MINI)
    prepare_key(picture(drawn.color), for_keys, MINI, networks=networks)
    assert networks.asked == ["key_mask"]
    np.testing.assert_array_equal(frame.mask, usual.mask)


@pytest.mark.parametrize(
    ("preset", "key"),
    [
        (Preset(masks=BY_NETWORK), "masks.network"),
        (Preset(lines=LineSettings(mode="extract", extractor="network", network="lines.onnx")), "lines.network"),
    ],
)
def test_a_preset_that_names_networks_cannot_do_without(preset: Preset, key: str) -> None:
    with pytest.raises(PresetError, match=key):
        prepare_frame(picture(figure().color), preset, MINI)


def test_one_network_draws_the_lines_of_frames_and_key() -> None:
    drawn = figure()
    networks = Answers(drawn.ink)
    preset = Preset(
        canvas=CanvasSettings(crop="frame"),
        lines=LineSettings(mode="extract", extractor="network", network="lines.onnx", min_stroke_px=0),
    )
    frame = prepare_frame(picture(drawn.color), preset, MINI, networks=networks)
    key = prepare_key(picture(drawn.color), preset, MINI, networks=networks)
    assert networks.asked == ["lines", "lines"]
    np.testing.assert_array_equal(frame.lines.ink, drawn.ink)
    np.testing.assert_array_equal(key.ink_canvas, frame.ink_canvas)


def test_a_painting_with_light_lines_is_turned_over_for_the_network() -> None:
    drawn = figure()
    networks = Answers(drawn.ink)
    preset = Preset(
        lines=LineSettings(mode="extract", extractor="network", network="lines.onnx", polarity="light-on-dark")
    )
    prepare_frame(picture(drawn.color), preset, MINI, networks=networks)
    np.testing.assert_allclose(networks.shown[0][1], 1 - drawn.color, atol=1e-6)


# --- what becomes of a mask ---------------------------------------------------------------------------------------


def test_a_rough_mask_ends_at_the_outline() -> None:
    drawn = figure(960, 720)
    found = rough(drawn.mask, 3)
    snapped = snap_to_lines(found, drawn.ink)
    assert overlap(found, drawn.mask) < 0.96
    assert overlap(snapped, drawn.mask) > 0.985
    # Outside of the stroke there is no paper that would be painted.
    beyond = cv2.dilate(drawn.mask, np.ones((3, 3), np.uint8)) == 0
    assert snapped[beyond].max() < 0.5


def test_a_mask_that_falls_short_is_filled_up_to_the_outline() -> None:
    drawn = figure(960, 720)
    short = cv2.erode(drawn.mask, np.ones((9, 9), np.uint8))
    assert snap_to_lines(short, drawn.ink)[drawn.mask > 0].mean() > 0.99


def test_a_room_drawn_behind_the_character_stays_outside_with_its_lines() -> None:
    drawn = figure()
    ink = drawn.ink.copy()
    cv2.rectangle(ink, (30, 30), (120, 420), 1.0, 3)   # a door
    cv2.line(ink, (0, 400), (150, 400), 1.0, 3)         # the floor, not as far as the figure
    snapped = snap_to_lines(rough(drawn.mask, 2), ink)
    assert snapped[:, :130].max() == 0
    assert overlap(snapped, drawn.mask) > 0.97


def test_no_closed_region_is_colored_by_halves() -> None:
    ink = np.zeros((400, 600), np.float32)
    cv2.rectangle(ink, (200, 100), (400, 300), 1.0, 3)
    cv2.line(ink, (300, 100), (300, 300), 1.0, 3)   # two panels
    found = np.zeros_like(ink)
    found[97:304, 197:280] = 1                       # all of the left one but its edge
    found[97:180, 280:404] = 1                       # not half of the right one
    snapped = snap_to_lines(found, ink)
    assert snapped[110:290, 210:290].min() == 1
    assert snapped[110:290, 310:390].max() == 0


def test_where_the_outline_is_open_the_networks_edge_stays_but_not_its_slips_along_the_lines() -> None:
    ink = np.zeros((800, 1200), np.float32)
    cv2.rectangle(ink, (400, 200), (800, 600), 1.0, 3)
    ink[195:606, 795:806] = 0  # the right side of the box is missing
    found = np.zeros_like(ink)
    found[193:608, 393:800] = 1  # five pixels too wide, and the right side where it was
    snapped = snap_to_lines(found, ink)
    box = np.zeros_like(ink)
    box[198:603, 398:800] = 1
    assert overlap(found, box) < 0.97 and overlap(snapped, box) > 0.99
    assert snapped[190:197, 500:700].max() < 0.5 and snapped[300:500, 390:397].max() < 0.5


def test_frames_and_keys_get_masks_that_end_at_their_lines() -> None:
    drawn = figure(960, 720)
    networks = Answers(rough(drawn.mask, 3))
    preset = Preset(masks=BY_NETWORK)
    frame = prepare_frame(picture(1 - drawn.ink), preset, MINI, networks=networks)
    key = prepare_key(picture(drawn.color), preset, MINI, networks=networks)
    assert overlap(frame.mask, drawn.mask) > 0.985
    assert overlap(key.mask, drawn.mask) > 0.975


def test_no_character_found_is_no_character() -> None:
    drawn = figure()
    assert snap_to_lines(np.full_like(drawn.mask, 0.3), drawn.ink).max() == 0


def test_the_published_programs_masks_are_taken_as_they_are() -> None:
    drawn = figure()
    found = rough(drawn.mask, 3)
    preset = Preset(masks=BY_NETWORK, compat="published")
    frame = prepare_frame(picture(1 - drawn.ink), preset, MINI, networks=Answers(found))
    key = prepare_key(picture(drawn.color), preset, MINI, networks=Answers(found))
    np.testing.assert_array_equal(frame.mask, found)
    np.testing.assert_array_equal(key.mask, found)
    np.testing.assert_array_equal(key.bleach_mask, found)


def test_the_key_is_bleached_with_ten_pixels_around_what_the_network_found() -> None:
    drawn = figure(paper=(0.2, 0.6, 0.4))
    preset = Preset(canvas=CanvasSettings(crop="frame"), masks=BY_NETWORK)
    key = prepare_key(picture(drawn.color), preset, MINI, networks=Answers(drawn.mask))
    tight, grown = (mask > 0.5 for mask in (key.mask, key.bleach_mask))
    expected = cv2.dilate(tight.astype(np.uint8), np.ones((21, 21), np.uint8)) > 0
    np.testing.assert_array_equal(grown, expected)
    assert (key.bleached_canvas[key.bleach_mask_canvas >= 0.5] == 1).all()
    # The margin is for bleaching alone: no color of the paper comes into the palette.
    assert np.abs(key.palette.colors - [0.2, 0.6, 0.4]).max(axis=1).min() > 0.1


# --- the background -----------------------------------------------------------------------------------------------

WALL = (0.3, 0.5, 0.7)


def behind(preset: Preset, background_masks: tuple[Float, ...] = (), networks: Answers | None = None) -> PreparedKey:
    """A key on white, and a wall of one color with the same figure before it, at another size."""
    key, wall = figure(), figure(480, 400, paper=WALL)
    return prepare_key(picture(key.color), preset, MINI, (), networks, picture(wall.color), background_masks)


def with_image(**settings: bool) -> BackgroundSettings:
    return BackgroundSettings(image="wall.png", split=True, **settings)


def test_without_a_background_picture_the_key_has_none() -> None:
    assert prepare_key(picture(figure().color), Preset(), MINI).background is None


def test_a_background_is_taken_whole_at_its_own_size_and_has_no_character_unless_told() -> None:
    key = behind(Preset(background=with_image()))
    assert key.background is not None
    np.testing.assert_array_equal(key.background.color, figure(480, 400, paper=WALL).color)
    assert key.background.mask.shape == (400, 480) and key.background.mask.max() == 0


def test_the_character_in_a_background_is_painted_white() -> None:
    wall = figure(480, 400, paper=WALL)
    key = behind(Preset(background=with_image(remove_foreground=True)))
    assert key.background is not None
    assert overlap(key.background.mask, wall.mask) > 0.95
    inside = cv2.erode(wall.mask, np.ones((5, 5), np.uint8)) > 0
    outside = cv2.dilate(wall.mask, np.ones((5, 5), np.uint8)) == 0
    assert (key.background.color[inside] == 1).all()
    assert np.abs(key.background.color[outside] - np.float32(WALL)).max() < 1e-6


def test_it_is_found_even_if_the_frames_have_no_masks() -> None:
    key = behind(Preset(background=with_image(remove_foreground=True), masks=MaskSettings(source="none")))
    assert key.background is not None
    assert 0.05 < key.background.mask.mean() < 0.5


def test_a_mask_that_is_given_for_the_background_is_its_mask() -> None:
    half = np.zeros((400, 480), np.float32)
    half[:, 240:] = 1
    key = behind(Preset(background=with_image(remove_foreground=True)), (half,))
    assert key.background is not None
    np.testing.assert_array_equal(key.background.mask, half)
    assert (key.background.color[:, 240:] == 1).all() and key.background.color[5, 5].max() < 0.8


def test_the_network_of_keys_looks_at_the_background_as_well() -> None:
    found = figure(480, 400).mask
    preset = Preset(background=with_image(), masks=BY_NETWORK)

    class BySize(Answers):
        def key_mask(self, color: Float) -> Float:
            super().key_mask(color)
            return found if color.shape[:2] == found.shape else figure().mask

    networks = BySize(found)
    key = behind(preset, networks=networks)
    assert networks.asked == ["key_mask", "key_mask"]
    assert key.background is not None
    np.testing.assert_array_equal(key.background.mask, cv2.dilate(found, np.ones((21, 21), np.uint8)))


def test_padding_widens_the_background_only_as_the_published_program_does() -> None:
    padding = ReferenceSettings(padding=1.5)
    ours = behind(Preset(background=with_image(), reference=padding)).background
    theirs = behind(Preset(background=with_image(), reference=padding, compat="published")).background
    assert ours is not None and theirs is not None
    assert ours.color.shape == (400, 480, 3) and theirs.color.shape == (400, 720, 3)
    assert theirs.color[:, :120].min() == 1 and theirs.color[:, 600:].min() == 1


def test_the_published_program_takes_the_keys_mask_for_the_backgrounds() -> None:
    key = behind(Preset(background=with_image(), compat="published"))
    assert key.background is not None
    np.testing.assert_array_equal(key.background.mask, key.mask)
