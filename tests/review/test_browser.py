"""The page in a headless Chromium, offline and from disk: slider, playing, keys, many frames, failed frames, themes.

`pytest -m browser` runs these alone. A Chromium is looked for as COLORCLI_CHROMIUM, on the PATH, as Playwright's own.
The page lets no other script run than its own, so the tests wait by what they see.
"""

import io
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from colorcli.review.page import write_page
from tests.review.studio import BLUE, RED, colored_shot, doubt, made_up_shot, page_of

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright (extra test)")

pytestmark = pytest.mark.browser
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser for all tests here."""
    named = os.environ.get("COLORCLI_CHROMIUM")
    path = named or next(filter(None, map(shutil.which, NAMES)), None)
    with playwright.sync_playwright() as driver:
        path = path or driver.chromium.executable_path
        if not Path(path).exists():
            assert not named, f"COLORCLI_CHROMIUM is {named}, which is not there"
            pytest.skip("there is no Chromium here: apt-get install chromium-headless-shell, or COLORCLI_CHROMIUM=PATH")
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Screen:
    """A page that is open, and what went wrong in it."""

    page: Any
    faults: list[str] = field(default_factory=list)

    def painted(self, place: int) -> None:
        """Wait until a frame is on the screen."""
        self.page.wait_for_selector(f"#stage[data-painted='{place}']", state="attached")

    def pixel(self, x: float, y: float) -> tuple[int, ...]:
        """The color on the canvas at a place in 0..1."""
        return tuple(
            self.page.evaluate(
                "([x, y]) => { const c = document.getElementById('canvas');"
                "return [...c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data].slice(0, 3); }",
                [x, y],
            )
        )

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def said(self) -> str:
        return str(self.page.text_content("#said"))


Open = Callable[..., Screen]


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Open]:
    """Opens pages from disk; no request may leave, and no error may be told, until the test ends."""
    screens: list[tuple[Any, Screen]] = []

    def opened(path: Path, *, anchor: str = "", **settings: Any) -> Screen:
        context = chromium.new_context(offline=True, viewport={"width": 1280, "height": 900}, **settings)
        screen = Screen(context.new_page())
        screen.page.on("pageerror", lambda error: screen.faults.append(f"error {error}"))
        screen.page.on("console", lambda told: told.type == "error" and screen.faults.append(told.text))
        screen.page.on("request", lambda asked: asked.url.startswith(("file:", "data:", "blob:"))
                       or screen.faults.append(f"asked for {asked.url}"))
        screen.page.goto(path.as_uri() + anchor)
        screens.append((context, screen))
        return screen

    yield opened
    for context, screen in screens:
        context.close()
        assert screen.faults == []


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames of one box in red, but the third in blue."""
    out = colored_shot(tmp_path_factory.mktemp("small"), [RED, RED, BLUE, RED])
    page_of(out, out / "review.html")
    return out / "review.html"


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three frames of one box in red, the second with a region that may be blue."""
    out = colored_shot(tmp_path_factory.mktemp("doubtful"), [RED, RED, RED])
    doubt(out, "sc.0002", box=(24, 14, 36, 32), color="#cc3333", other="#3366cc", sure=0.38, share=0.45)
    page_of(out, out / "review.html")
    return out / "review.html"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five hundred frames, of which one failed."""
    shot, album = made_up_shot(500, failed=[200])
    path = tmp_path_factory.mktemp("large") / "review.html"
    write_page(path, [shot], album, rate=24, title="large")
    return path


RED_8, BLUE_8, WHITE = (204, 51, 51), (51, 102, 204), (255, 255, 255)


def test_left_of_the_slider_is_the_drawing_and_right_of_it_the_result(open_page: Open, small: Path) -> None:
    screen = open_page(small)
    screen.painted(0)
    assert (screen.pixel(0.05, 0.05), screen.pixel(0.95, 0.05)) == (WHITE, RED_8)
    screen.page.locator("#split").focus()
    screen.press("End")
    assert screen.pixel(0.95, 0.05) == WHITE
    screen.press("Home")
    assert screen.pixel(0.05, 0.05) == RED_8


def test_the_slider_can_be_dragged_on_the_picture(open_page: Open, small: Path) -> None:
    screen = open_page(small)
    screen.painted(0)
    box = screen.page.locator("#canvas").bounding_box()
    y = box["y"] + box["height"] * 0.1
    screen.page.mouse.move(box["x"] + box["width"] * 0.5, y)
    screen.page.mouse.down()
    screen.page.mouse.move(box["x"] + box["width"] * 0.8, y, steps=4)
    screen.page.mouse.up()
    assert screen.page.input_value("#split") == "80"
    assert (screen.pixel(0.75, 0.05), screen.pixel(0.85, 0.05)) == (WHITE, RED_8)


def test_before_and_after_alone(open_page: Open, small: Path) -> None:
    screen = open_page(small)
    screen.painted(0)
    screen.press("1")
    assert (screen.pixel(0.05, 0.05), screen.pixel(0.95, 0.05)) == (WHITE, WHITE)
    screen.page.get_by_role("button", name="after").click()
    assert (screen.pixel(0.05, 0.05), screen.pixel(0.95, 0.05)) == (RED_8, RED_8)


def test_every_key_does_what_the_list_of_keys_says(open_page: Open, small: Path) -> None:
    screen = open_page(small)
    screen.painted(0)
    for key, place in (("ArrowRight", 1), ("End", 3), ("ArrowLeft", 2), ("Shift+ArrowRight", 3), ("Home", 0)):
        screen.press(key)
        screen.painted(place)
    screen.press("n")
    screen.painted(2)   # the blue one is the one that is worth a look
    screen.press("3")
    assert screen.pixel(0.5, 0.5) == BLUE_8
    screen.press("2", "]", "]")
    assert screen.page.input_value("#split") == "60"
    screen.press("[")
    assert screen.page.input_value("#split") == "55"
    screen.press("b")
    assert screen.page.get_attribute("#stage", "data-backdrop") == "gray"
    screen.press("z")
    assert screen.page.get_attribute("#zoom", "aria-pressed") == "true"
    screen.press("l")
    assert screen.page.get_attribute("#loop", "aria-pressed") == "false"
    screen.press("?")
    listed = screen.page.locator("#help kbd").all_text_contents()
    assert {"Space", "←", "→", "Home", "End", "n", "p", "1", "2", "3", "[", "]", "x", "u", "z", "b", "l", "?"} == {
        key for key in listed if key != "Shift"
    }
    screen.press("Escape")
    assert not screen.page.locator("#help").is_visible()


def test_keys_can_be_switched_off_and_do_nothing_while_a_number_is_typed(open_page: Open, small: Path) -> None:
    screen = open_page(small)
    screen.painted(0)
    screen.page.locator("#rate").focus()
    screen.press("ArrowRight", "1", "2")
    screen.page.wait_for_timeout(200)
    assert screen.page.get_attribute("#stage", "data-painted") == "0"
    screen.page.click("#help-open")
    screen.page.uncheck("#keys-on")
    screen.press("Escape")
    screen.page.locator("h1").click()
    screen.press("ArrowRight")
    screen.page.wait_for_timeout(200)
    assert screen.page.get_attribute("#stage", "data-painted") == "0"


def test_every_control_is_reached_with_the_tab_key_and_shows_it(open_page: Open, small: Path) -> None:
    screen = open_page(small)
    screen.painted(0)
    reached = set()
    for _ in range(40):
        screen.press("Tab")
        ident, outline = screen.page.evaluate(
            "[document.activeElement.id || document.activeElement.dataset.view || '',"
            " getComputedStyle(document.activeElement).outlineStyle]"
        )
        if screen.page.evaluate("document.activeElement === document.body"):
            break   # once round
        assert outline != "none", ident
        reached.add(ident)
    assert reached >= {"theme", "split", "frame", "back", "play", "on", "rate", "loop", "before", "wipe", "after",
                       "changes", "unsure", "zoom", "backdrop", "help-open"}


def test_a_changed_region_is_framed_where_it_is(open_page: Open, small: Path) -> None:
    screen = open_page(small, anchor="#shot-0-frame-2")
    screen.painted(2)
    (box,) = screen.page.eval_on_selector_all(
        "#boxes rect", "all => all.map(r => ['x', 'y', 'width', 'height'].map(n => +r.getAttribute(n)))"
    )
    # The box of the third frame, inside its line of two pixels.
    assert box == pytest.approx([24 / 96, 14 / 64, 36 / 96, 36 / 64], abs=0.001)
    screen.press("x")
    assert screen.page.locator("#boxes rect").count() == 0


def test_unsure_regions_are_framed_where_they_are_and_told_with_both_colors(open_page: Open, doubtful: Path) -> None:
    screen = open_page(doubtful, anchor="#shot-0-frame-1")
    screen.painted(1)
    framed = "#boxes rect.unsure"
    (box,) = screen.page.eval_on_selector_all(
        framed, "all => all.map(r => ['x', 'y', 'width', 'height'].map(n => +r.getAttribute(n)))"
    )
    assert box == pytest.approx([24 / 96, 14 / 64, 36 / 96, 32 / 64], abs=0.001)
    assert screen.page.text_content("#doubts") == "unsure:  #cc3333 or  #3366cc, 38 % sure"
    assert "unsure: 1 region, 45% of the figure" in screen.said()
    screen.press("1")
    assert screen.page.locator(framed).count() == 0   # the drawing has no colors
    screen.press("2", "u")
    assert screen.page.locator(framed).count() == 0
    assert screen.page.get_attribute("#unsure", "aria-pressed") == "false"
    assert screen.page.locator("#doubts").is_hidden()
    screen.page.locator("#unsure").click()
    assert screen.page.locator(framed).count() == 1
    screen.press("ArrowLeft")
    screen.painted(0)
    assert screen.page.locator(framed).count() == 0


def test_the_frame_of_an_unsure_region_has_a_dark_rim_where_the_picture_is_as_bright(
    open_page: Open, doubtful: Path
) -> None:
    screen = open_page(doubtful, anchor="#shot-0-frame-1")
    screen.painted(1)
    screen.press("3")
    region = screen.page.locator("#boxes rect.unsure").bounding_box()
    near = {"x": region["x"] + region["width"] / 2, "y": region["y"] + region["height"] - 12, "width": 1, "height": 24}
    column = Image.open(io.BytesIO(screen.page.screenshot(clip=near))).convert("RGB")
    colors = [column.getpixel((0, y)) for y in range(column.height)]
    assert (255, 176, 0) in colors and RED_8 in colors
    assert min(map(sum, colors)) < 0.8 * sum(RED_8)   # that of the two which is darker


def test_of_more_unsure_regions_than_are_listed_the_others_are_counted(open_page: Open, tmp_path: Path) -> None:
    out = colored_shot(tmp_path, [RED, RED])
    doubt(out, "sc.0002", box=(24, 14, 36, 32), color="#cc3333", share=0.005, count=9)
    page_of(out, out / "review.html")
    screen = open_page(out / "review.html", anchor="#shot-0-frame-1")
    screen.painted(1)
    assert screen.page.text_content("#doubts") == "unsure:  #cc3333; and 8 smaller"
    assert "unsure regions 9" in screen.said()


def test_a_color_can_be_read_off_the_picture(open_page: Open, small: Path) -> None:
    screen = open_page(small)
    screen.painted(0)
    box = screen.page.locator("#canvas").bounding_box()
    screen.page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.5)
    assert screen.page.text_content("#probe") == " after #cc3333, a color of the key"


def test_cards_curves_and_the_contact_sheet_lead_to_their_frames(open_page: Open, small: Path) -> None:
    screen = open_page(small)
    screen.painted(0)
    screen.page.locator(".card").first.click()
    screen.painted(2)
    screen.page.locator(".sheet button[data-frame='3']").click()
    screen.painted(3)
    plot = screen.page.locator(".plot svg").first
    plot.click(position={"x": plot.bounding_box()["width"] * 0.375, "y": 20})
    screen.painted(1)
    screen.page.get_by_role("button", name="worth a look").click()
    assert screen.page.locator(".sheet li:visible").count() == 1


def test_five_hundred_frames_play_at_their_rate_and_none_before_its_time(open_page: Open, large: Path) -> None:
    screen = open_page(large)
    screen.painted(0)
    screen.page.evaluate(
        "() => { window.seen = []; new MutationObserver(() => seen.push([performance.now(), +stage.dataset.painted]))"
        ".observe(stage, {attributes: true, attributeFilter: ['data-painted']}); }"
    )
    screen.page.fill("#rate", "20")
    screen.page.locator("h1").click()
    begun = screen.page.evaluate("performance.now()")
    screen.press("Space")
    while screen.page.evaluate("seen.length") <= 30:
        screen.page.wait_for_timeout(50)
    screen.press("Space")
    seen = screen.page.evaluate("seen")
    places = [place for _, place in seen]
    stopped = places[-1]
    assert places == sorted(places) and screen.page.get_attribute("#play", "aria-pressed") == "false"
    # A busy machine is late and leaves frames out, as a player has to; no machine runs ahead.
    assert all(place <= (time - begun) / 1000 * 20 + 0.5 for time, place in seen[:-1])
    assert places[-1] >= 30
    screen.page.wait_for_timeout(150)
    assert screen.page.get_attribute("#stage", "data-painted") == str(stopped)
    # What is on the screen is the frame that is named.
    screen.press("3")
    assert screen.pixel(0.5, 0.5) == (stopped % 200 + 30,) * 3


def test_a_shot_plays_round_and_stops_at_its_end_without_the_loop(open_page: Open, small: Path) -> None:
    screen = open_page(small)
    screen.painted(0)
    screen.page.fill("#rate", "60")
    screen.page.locator("h1").click()
    screen.press("l", "Space")
    screen.page.wait_for_selector("#play[aria-pressed='false']")
    screen.painted(3)
    screen.press("Home", "ArrowRight", "l", "Space")
    screen.painted(3)
    screen.painted(0)   # by itself
    screen.painted(2)
    screen.press("Space")


def test_the_last_of_five_hundred_frames_is_there_at_once(open_page: Open, large: Path) -> None:
    screen = open_page(large)
    screen.painted(0)
    screen.press("End", "3")
    screen.painted(499)
    assert screen.pixel(0.5, 0.5) == (499 % 200 + 30,) * 3
    assert screen.page.locator(".sheet li").count() == 500
    assert screen.page.get_attribute("#frame", "aria-valuetext") == "sc.0500, 500 of 500, colored"


def test_a_failed_frame_shows_what_happened_over_its_drawing(open_page: Open, large: Path) -> None:
    screen = open_page(large)
    screen.painted(0)
    screen.press("n")
    screen.painted(200)
    assert screen.page.text_content("#slate") == "sc.0201 failed\nsc.0201.png is damaged\nsave it again"
    assert screen.page.locator("#slate").is_visible()
    assert screen.page.locator("#marks .failed").count() == 1
    assert "failed" in screen.said()
    screen.press("ArrowRight")
    screen.painted(201)
    assert not screen.page.locator("#slate").is_visible()


def test_light_and_dark_follow_the_system_until_somebody_chooses(open_page: Open, small: Path) -> None:
    def paper(screen: Screen) -> str:
        return str(screen.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light, dark = open_page(small, color_scheme="light"), open_page(small, color_scheme="dark")
    bright, dim = paper(light), paper(dark)
    assert bright == "rgb(250, 250, 248)" and dim == "rgb(22, 23, 26)"
    dark.page.select_option("#theme", "light")
    assert paper(dark) == bright
    dark.page.select_option("#theme", "auto")
    assert paper(dark) == dim


def test_several_shots_are_chosen_from_one_list(open_page: Open, tmp_path: Path) -> None:
    one, album = made_up_shot(3)
    other = replace(one, name="sc02", frames=one.frames[:2])
    write_page(tmp_path / "a.html", [one, other], album, rate=24, title="two")
    screen = open_page(tmp_path / "a.html")
    screen.painted(0)
    screen.page.select_option("#shot-select", label="sc02")
    assert not screen.page.locator("#shot-0").is_visible() and screen.page.locator("#shot-1 #viewer").is_visible()
    screen.press("End")
    screen.painted(1)
    screen.page.locator("[data-shot='0']").click()
    assert screen.page.locator("#shot-0 #viewer").is_visible() and screen.page.input_value("#shot-select") == "0"


def test_a_shot_without_frames_keeps_the_others_from_nothing(open_page: Open, tmp_path: Path) -> None:
    one, album = made_up_shot(3)
    write_page(tmp_path / "a.html", [replace(one, name="sc00", frames=()), one], album, rate=24, title="two")
    screen = open_page(tmp_path / "a.html", anchor="#shot-0-frame-0")
    assert screen.page.locator("#shot-0").is_visible() and not screen.page.locator("#viewer").is_visible()
    screen.press("ArrowRight", "Space", "3")
    screen.page.select_option("#shot-select", label="sc")
    screen.painted(0)
    screen.press("End")
    screen.painted(2)


def test_a_layer_takes_the_place_of_the_result(open_page: Open, tmp_path: Path) -> None:
    shot, album = made_up_shot(2)
    flat = made_up_shot(9)[0].frames[8].after   # of another gray than the result
    assert flat is not None
    album.add("layer", made_up_shot(9)[1][flat])
    frames = (replace(shot.frames[0], layers={"flat": len(album) - 1}), shot.frames[1])
    write_page(tmp_path / "a.html", [replace(shot, frames=frames)], album, rate=24, title="layers")
    screen = open_page(tmp_path / "a.html")
    screen.painted(0)
    screen.press("3")
    assert screen.pixel(0.5, 0.5) == (30, 30, 30)
    screen.page.select_option("#layer", "flat")
    screen.page.wait_for_timeout(200)
    assert screen.pixel(0.5, 0.5) == (38, 38, 38)
    screen.page.locator("h1").click()
    screen.press("ArrowRight")
    screen.painted(1)
    assert screen.page.text_content("#slate") == "sc.0002 has no layer flat"


def test_without_scripts_the_frames_and_the_numbers_are_there(open_page: Open, small: Path) -> None:
    screen = open_page(small, java_script_enabled=False)
    assert screen.page.locator(".sheet li img").count() == 4
    assert screen.page.locator(".card").is_visible() and screen.page.locator(".curve .line").count() == 3
    assert not screen.page.locator("#viewer").is_visible()


def test_a_narrow_window_scrolls_in_one_direction_only(open_page: Open, small: Path) -> None:
    screen = open_page(small)
    screen.painted(0)
    screen.page.set_viewport_size({"width": 360, "height": 740})
    assert screen.page.evaluate("document.documentElement.scrollWidth") <= 360
