"""The page as a file: whole, alone, harmless, and with the very colors of the frames."""

import base64
import hashlib
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from PIL import Image

from colorcli.cli.review import review
from colorcli.errors import FrameError, ShotError
from colorcli.images import Picture, read_picture, write_picture
from colorcli.prepare.palette_file import hex_color
from colorcli.presets import FinishSettings, LayerSettings, Preset
from colorcli.review.page import write_page
from colorcli.review.pictures import Album, page_copy
from colorcli.review.reviewed import drawing_of, find_outs, page_size, result_of, review_shot
from colorcli.shot.journal import Journal
from colorcli.shot.manifest import read_records
from tests.review.studio import BLUE, GREEN, PNG8, RED, Page, boxes, colored_shot, made_up_shot, page_of
from tests.shot.studio import as_painted, draw_key, draw_shot
from tests.shot.studio import color as color_shot

LEVELS = {RED: (204, 51, 51), GREEN: (51, 153, 51), BLUE: (51, 102, 204)}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five frames of one box; the third is of another color, and the fourth drawing is damaged."""
    folder = tmp_path_factory.mktemp("colored")
    out = colored_shot(folder, [RED, RED, BLUE, RED, RED])
    (folder / "sc" / "sc.0004.png").write_bytes((folder / "sc" / "sc.0004.png").read_bytes()[:60])
    color_shot(folder / "sc", ref=folder / "key.png", out=out, preset=as_painted())
    return out


@pytest.fixture(scope="module")
def page(out: Path) -> Page:
    text, _ = page_of(out, out / "review.html")
    return Page(text)


def decoded(page: Page, number: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(page.picture(number)))))


def test_every_frame_is_in_the_page_before_and_after_in_its_own_colors(page: Page, out: Path) -> None:
    (shot,) = page.data["shots"]
    frames = shot["frames"]
    assert [frame["name"] for frame in frames] == [f"sc.{number:04d}" for number in range(1, 6)]
    for frame, fill in zip(frames, [RED, RED, BLUE, None, RED], strict=True):
        if fill is not None:
            assert tuple(decoded(page, frame["after"])[30, 40]) == LEVELS[fill]
            assert tuple(decoded(page, frame["before"])[30, 40]) == (255, 255, 255)


def test_the_frame_of_another_color_is_worth_a_look_and_so_is_the_failed_one(page: Page) -> None:
    (shot,) = page.data["shots"]
    assert [shot["frames"][place]["name"] for place in shot["first"]] == ["sc.0004", "sc.0003"]


def test_a_failed_frame_has_its_message_and_what_to_do(page: Page) -> None:
    (shot,) = page.data["shots"]
    assert shot["frames"][3]["error"].startswith("sc.0004.png is")
    assert shot["frames"][3]["error"] in page.words and shot["frames"][3]["hint"] in page.words


def test_settings_models_licenses_and_the_key_are_there(page: Page) -> None:
    for told in ("palette_reach", "Apache-2.0", "ab" * 32, "key.png", "#cc3333"):
        assert told in page.words


def test_nothing_of_the_page_lies_elsewhere(page: Page) -> None:
    links = [value for _, attributes in page.elements for name, value in attributes.items()
             if name in ("src", "href", "action", "poster", "data", "srcset") and value]
    assert {link.split(":")[0] for link in links if not link.startswith("#")} <= {"data"}
    code = "".join(text for _, text in page.scripts)
    assert not re.search(r"https?://(?!www\.w3\.org/)|url\(|@import|fetch\(|XMLHttpRequest|sendBeacon", code)


def test_only_the_pages_own_script_and_style_are_let_run(page: Page) -> None:
    (policy,) = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none'")
    for kind, directive in (("script", "script-src"), ("style", "style-src")):
        (text,) = [text for attributes, text in page.scripts if attributes[""] == kind and "type" not in attributes]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    names = {name for _, attributes in page.elements for name in attributes}
    assert "style" not in names and not [name for name in names if name.startswith("on")]


def test_every_control_has_a_name_and_every_id_is_one(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labels = {label["for"] for label in page.of("label") if "for" in label}
    sliders = [field for field in page.of("input") if field["type"] == "range"]
    assert sliders and all(field["id"] in labels for field in sliders)
    assert all("alt" in image for image in page.of("img"))
    assert all("aria-label" in drawing or drawing.get("aria-hidden") == "true" for drawing in page.of("svg"))


def test_a_name_or_a_message_is_never_code(tmp_path: Path) -> None:
    shot, album = made_up_shot(2, failed=[1])
    wicked = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    record = shot.frames[1].record.model_copy(update={"frame": wicked})
    failure = record.error.model_copy(update={"message": wicked, "hint": wicked})  # type: ignore[union-attr]
    record = record.model_copy(update={"error": failure})
    frame = replace(shot.frames[1], measured=replace(shot.frames[1].measured, record=record))
    bad = replace(shot, name=wicked, frames=(shot.frames[0], frame), notes=(wicked,))
    write_page(tmp_path / "a.html", [bad], album, rate=24, title=wicked)
    page = Page((tmp_path / "a.html").read_text())
    assert "alert(1)" in page.text
    assert not [1 for _, attributes in page.elements if "onerror" in attributes]
    assert not [text for attributes, text in page.scripts if "alert" in text and attributes.get("id") != "data"]
    assert page.data["shots"][0]["frames"][1]["name"] == wicked


def test_a_held_drawing_is_in_the_page_once(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk")
    (shot / "walk.0002.png").write_bytes((shot / "walk.0001.png").read_bytes())
    out = color_shot(shot, out=tmp_path / "out").plans[0].out
    page = Page(page_of(out, tmp_path / "a.html")[0])
    one, two, three, _ = page.data["shots"][0]["frames"]
    assert (one["before"], one["after"]) == (two["before"], two["after"])
    assert one["after"] != three["after"]
    assert two["flicker"] == 0.0


def test_a_shot_on_twos_is_shown_on_twos(tmp_path: Path) -> None:
    out = colored_shot(tmp_path, [RED] * 4, numbers=[1, 3, 5, 9])
    frames = Page(page_of(out, tmp_path / "a.html")[0]).data["shots"][0]["frames"]
    told = {frame["name"]: frame["ticks"] for frame in frames}
    # 7 is missing: it has a place of its own. The last drawing is shown as long as the others, as in a timeline.
    assert told == {"sc.0001": 2, "sc.0003": 2, "sc.0005": 2, "sc.7": 2, "sc.0009": 2}


def test_the_player_takes_every_rate_that_the_command_takes(page: Page) -> None:
    (limits,) = (field for tag, field in page.elements if field.get("id") == "rate")
    (option,) = get_type_hints(review, include_extras=True)["rate"].__metadata__
    assert (float(limits["min"] or 0), float(limits["max"] or 0)) == (option.min, option.max)


def test_where_nothing_changes_the_highest_flicker_is_a_number_and_not_that_of_the_first_frame(tmp_path: Path) -> None:
    text, _ = page_of(colored_shot(tmp_path, [RED] * 3), tmp_path / "a.html")
    assert "Highest 0.00 at sc.0002" in text


def test_beside_a_blank_drawing_nothing_is_compared_and_nothing_is_told_of_flicker(tmp_path: Path) -> None:
    (tmp_path / "sc").mkdir()
    for number, places in enumerate(([(20, 12, 40, 40)], [], [(20, 12, 40, 40)]), 1):
        write_picture(tmp_path / "sc" / f"sc.{number:04d}.png", boxes(*places), None, PNG8)
    draw_key(tmp_path / "key.png", RED)
    out = tmp_path / "out"
    color_shot(tmp_path / "sc", ref=tmp_path / "key.png", out=out, preset=as_painted())
    text, shot = page_of(out, tmp_path / "a.html")
    frames = Page(text).data["shots"][0]["frames"]
    assert [(frame["flicker"], frame["repainted"]) for frame in frames] == [(None, None)] * 3
    assert shot.flicker is None and shot.repainted is None


def test_without_the_drawings_there_are_the_results_and_a_word_about_it(tmp_path: Path) -> None:
    out = colored_shot(tmp_path, [RED, BLUE])
    (tmp_path / "sc").rename(tmp_path / "moved")
    _, shot = page_of(out, tmp_path / "a.html")
    assert "--drawings" in " ".join(shot.notes)
    assert [(frame.before, frame.after is not None) for frame in shot.frames] == [(None, True), (None, True)]
    found = review_shot(out, Album(), drawings=tmp_path / "moved")
    assert found.notes == () and all(frame.before is not None for frame in found.frames)


def test_what_was_changed_since_is_told(tmp_path: Path) -> None:
    out = colored_shot(tmp_path, [RED] * 4)
    write_picture(out / "sc.0002.png", boxes((5, 5, 20, 20)), None, PNG8)
    write_picture(tmp_path / "sc" / "sc.0003.png", boxes((5, 5, 20, 20)), None, PNG8)
    (out / "sc.0004.png").unlink()
    shot = review_shot(out, Album())
    assert [frame.measured.trouble for frame in shot.frames] == [
        None,
        "sc.0002.png is not the file that was written: somebody has changed it",
        "sc.0003.png was drawn anew since: the next run colors it again",
        "its picture cannot be shown: sc.0004.png is not there",
    ]
    assert {shot.frames[place].record.frame for place in shot.first} >= {"sc.0002", "sc.0003", "sc.0004"}


def test_a_key_that_was_painted_anew_is_told(tmp_path: Path) -> None:
    out = colored_shot(tmp_path, [RED])
    assert review_shot(out, Album()).notes == ()
    draw_key(tmp_path / "key.png", BLUE)
    (note,) = review_shot(out, Album()).notes
    assert note.startswith("the key was painted anew since")
    (tmp_path / "key.png").unlink()
    (note,) = review_shot(out, Album()).notes
    assert note == "the key cannot be shown: key.png is missing"


def test_a_record_that_names_a_file_elsewhere_shows_nothing_of_it(tmp_path: Path) -> None:
    out = colored_shot(tmp_path, [RED])
    write_picture(tmp_path / "secret.png", boxes((5, 5, 20, 20)), None, PNG8)
    (record,) = read_records(out)
    with Journal(out / "frames-x.jsonl") as journal:
        journal.add(record.model_copy(update={"output": "../secret.png", "finished": "9999"}))
    album = Album()
    review_shot(out, album)
    secret = page_copy(read_picture(tmp_path / "secret.png"), 960).data
    assert secret not in [album[number].data for number in range(len(album))]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "..", "", "a/b.png", "a\0.png"])
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    shot, _ = made_up_shot(1)
    record = shot.frames[0].record.model_copy(update={"output": name, "source": name})
    frame = replace(shot.frames[0], measured=replace(shot.frames[0].measured, record=record))
    for file_of in (result_of, drawing_of):
        with pytest.raises(FrameError, match="no plain file name"):
            file_of(shot, frame)


def test_a_tree_of_shots_is_one_page(tmp_path: Path) -> None:
    for name, fill in (("sc01/a", RED), ("sc01/b", BLUE)):
        colored_shot(tmp_path / "in" / name, [fill]).rename(_below(tmp_path / "tree" / name))
    outs = find_outs(tmp_path / "tree")
    assert [out.relative_to(tmp_path / "tree").as_posix() for out in outs] == ["sc01/a", "sc01/b"]
    album = Album()
    shots = [review_shot(out, album, name=out.name) for out in outs]
    write_page(tmp_path / "a.html", shots, album, rate=25, title="tree")
    page = Page((tmp_path / "a.html").read_text())
    assert [shot["name"] for shot in page.data["shots"]] == ["a", "b"]
    fills = [tuple(decoded(page, shot["frames"][0]["after"])[30, 40]) for shot in page.data["shots"]]
    assert fills == [LEVELS[RED], LEVELS[BLUE]]
    assert page.data["rate"] == 25


def _below(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_layers_beside_the_frames_are_shown_if_asked_for(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1, 2))
    preset = as_painted(layers=LayerSettings(names=("matte", "flat")))
    out = color_shot(shot, out=tmp_path / "out", preset=preset).plans[0].out
    album = Album()
    found = review_shot(out, album, with_layers=True)
    assert [set(frame.layers) for frame in found.frames] == [{"matte", "flat"}] * 2
    matte = found.frames[0].layers["matte"]
    assert matte is not None
    shown = np.asarray(Image.open(io.BytesIO(album[matte].data)).convert("RGB"))
    assert (shown[:, :, 0] == read_picture(out / "layers" / "matte" / "walk.0001.png").color[:, :, 0] * 255).all()
    assert review_shot(out, Album()).frames[0].layers == {}


def test_a_palette_of_the_production_stands_beside_the_keys(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1,))
    (tmp_path / "show.gpl").write_text("GIMP Palette\n210 80 60 brick\n")   # the key's box is 204 77 51
    preset = Preset(finish=FinishSettings(palette_file=str(tmp_path / "show.gpl")))
    out = color_shot(shot, out=tmp_path / "out", preset=preset).plans[0].out
    color = review_shot(out, Album()).palette[0]
    assert hex_color(color.color) == "#d2503c" and color.in_key is not None
    assert hex_color(color.in_key) == "#cc4d33"


def test_the_same_shot_gives_the_same_page(out: Path, tmp_path: Path) -> None:
    pages = [page_of(out, tmp_path / name)[0] for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_a_mask_from_a_file_says_what_the_character_is(tmp_path: Path) -> None:
    places = (8, 8, 30, 30), (54, 8, 34, 30)
    drawing = boxes(*places)
    write_picture(_below(tmp_path / "sc" / "sc.0001.png"), drawing, None, PNG8)
    only_left = np.zeros((64, 96, 3), np.float32)
    only_left[:, :48] = 1
    write_picture(_below(tmp_path / "masks" / "sc.0001.png"), only_left, None, PNG8)
    draw_key(tmp_path / "key.png")
    masks = (tmp_path / "masks",)
    out = color_shot(tmp_path / "sc", ref=tmp_path / "key.png", out=tmp_path / "out", masks=masks).plans[0].out
    look = review_shot(out, Album()).frames[0].measured.look
    assert look is not None
    left = 26 * 26   # inside the lines of the left box; the paper beside it counts as well, the right box does not
    right = 30 * 26
    everything = 48 * 64 - (30 * 30 - left)
    assert left + right < look.character_px <= everything


def test_a_folder_that_nobody_colored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShotError, match=r"holds no manifest\.json"):
        find_outs(tmp_path)


def test_flat_color_is_kept_to_the_level_and_alpha_with_it() -> None:
    color = np.zeros((40, 60, 3), np.float32)
    color[:, :30], color[:, 30:] = np.array(LEVELS[RED]) / 255, np.array(LEVELS[BLUE]) / 255
    alpha = np.ones((40, 60), np.float32)
    alpha[:20] = 100 / 255
    copy = page_copy(Picture(color, alpha, PNG8, 4), 960)
    pixels = np.asarray(Image.open(io.BytesIO(copy.data)).convert("RGBA"))
    assert copy.exact and copy.size == (60, 40)
    assert tuple(pixels[5, 5]) == (*LEVELS[RED], 100) and tuple(pixels[35, 50]) == (*LEVELS[BLUE], 255)


def test_a_noisy_picture_is_compressed_so_that_the_page_stays_small() -> None:
    noise = np.random.default_rng(1).random((540, 960, 3), np.float32)
    copy = page_copy(Picture(noise, None, PNG8, 3), 480)
    assert not copy.exact and copy.size == (480, 270)
    assert len(copy.data) < 480 * 270 * 3 / 2


def test_many_frames_are_smaller() -> None:
    assert [page_size(count) for count in (1, 500, 1000, 9000)] == [960, 960, 640, 480]


def test_an_empty_shot_has_a_page(tmp_path: Path) -> None:
    shot, album = made_up_shot(0)
    write_page(tmp_path / "a.html", [shot], album, rate=24, title="none")
    assert "0 of 0 frames there" in Page((tmp_path / "a.html").read_text()).words
