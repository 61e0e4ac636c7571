"""The colors of a production's palette on a shot: what is painted, what makes frames new, what is told and recorded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from colorcli.errors import PresetError
from colorcli.images import read_picture, write_picture
from colorcli.prepare.frame import PreparedFrame
from colorcli.prepare.key import PreparedKey
from colorcli.presets import CanvasSettings, FinishSettings, Preset
from colorcli.shot.manifest import read_manifest
from colorcli.shot.plan import ShotRequest, plan_shots
from tests.shot.studio import PNG8, FakeColorizer, color, draw_key, draw_shot

Float = NDArray[np.float32]

KEY_COLOR = (204, 77, 51)   # of the studio's key
OFFICIAL = (210, 70, 45)    # looks nearly the same
BLUE = (20, 40, 200)


class PaintsTheKeysColor(FakeColorizer):
    """Every canvas in the largest flat color of the key."""

    def encode_reference(self, key: PreparedKey, preset: Preset) -> Float:
        first: Float = key.palette.colors[0]
        return first

    def color(
        self, frames: Sequence[PreparedFrame], reference: Float, preset: Preset, decided: Any = ()
    ) -> list[Float]:
        self.colored += len(frames)
        return [np.ones((*frame.ink_canvas.shape, 3), np.float32) * reference for frame in frames]


def with_palette(file: Path | None) -> Preset:
    return Preset(
        canvas=CanvasSettings(crop="frame"),
        finish=FinishSettings(palette_file=None if file is None else str(file)),
    )


def gpl(path: Path, *colors: tuple[int, int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [" ".join(str(level) for level in levels) for levels in colors]
    path.write_text("\n".join(["GIMP Palette", *lines, ""]))
    return path


def inside_the_box(out: Path, name: str = "walk.0001.png") -> tuple[int, ...]:
    """The color in the middle of the first drawing's box."""
    picture = read_picture(out / name)
    return tuple(round(float(level) * 255) for level in picture.color[26, 27])


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    return draw_shot(tmp_path / "walk", (1, 2))


def test_what_has_a_color_of_the_key_gets_the_productions_own(walk: Path, tmp_path: Path) -> None:
    color(walk, colorizer=PaintsTheKeysColor(), preset=with_palette(None), out=tmp_path / "plain")
    assert inside_the_box(tmp_path / "plain") == KEY_COLOR
    official = gpl(tmp_path / "hero.gpl", BLUE, OFFICIAL)
    color(walk, colorizer=PaintsTheKeysColor(), preset=with_palette(official), out=tmp_path / "official")
    assert inside_the_box(tmp_path / "official") == OFFICIAL


def test_a_color_that_the_production_does_not_have_stays_and_is_told(walk: Path, tmp_path: Path) -> None:
    done = color(walk, colorizer=PaintsTheKeysColor(), preset=with_palette(gpl(tmp_path / "hero.gpl", BLUE)))
    assert inside_the_box(done.plans[0].out) == KEY_COLOR
    (told,) = [text for text in done.listener.warnings if "hero.gpl" in text]
    assert "#cc4d33" in told


def two_tone_key(path: Path) -> Path:
    """A key with one surface, half of it in shadow."""
    draw_key(path)
    key = read_picture(path)
    pixels = key.color.copy()
    pixels[11:40, 26:40] *= np.float32(0.6)
    write_picture(path, pixels, None, PNG8)
    return path


def test_a_shadow_that_the_production_does_not_have_is_made_and_told(walk: Path, tmp_path: Path) -> None:
    two_tone_key(tmp_path / "key.png")
    done = color(walk, colorizer=PaintsTheKeysColor(), preset=with_palette(gpl(tmp_path / "hero.gpl", OFFICIAL)))
    (told,) = [text for text in done.listener.warnings if "hero.gpl" in text]
    key, official = np.array(KEY_COLOR) / 255, np.array(OFFICIAL) / 255
    dark = np.round(key * 0.6 * 255) / 255
    made = encoded(light(official) * light(dark) / light(key))
    assert "no shadow for 1 of" in told and "#" + "".join(f"{round(level * 255):02x}" for level in made) in told


def test_a_palette_swap_repaints_the_shot(walk: Path, tmp_path: Path) -> None:
    night = tmp_path / "night.json"
    night.write_text('{"#cc4d33": "#14285a"}')
    done = color(walk, colorizer=PaintsTheKeysColor(), preset=with_palette(night))
    assert inside_the_box(done.plans[0].out) == (0x14, 0x28, 0x5A)
    night.write_text('{"#cc4d33": "#14285b"}')
    assert len(color(walk, colorizer=PaintsTheKeysColor(), preset=with_palette(night)).colored) == 2


def test_a_swap_tells_the_old_colors_that_the_key_does_not_have_and_not_what_stays(walk: Path, tmp_path: Path) -> None:
    night = tmp_path / "night.json"
    night.write_text('{"#cc4d33": "#14285a"}')
    two_tone_key(tmp_path / "key.png")
    done = color(walk, colorizer=PaintsTheKeysColor(), preset=with_palette(night))
    (told,) = [text for text in done.listener.warnings if "night.json" in text]
    assert "no shadow for 1 of" in told
    night.write_text('{"#18e018": "#14285a"}')
    done = color(walk, colorizer=PaintsTheKeysColor(), preset=with_palette(night))
    (told,) = [text for text in done.listener.warnings if "night.json" in text]
    assert "the key does not have" in told and "#18e018" in told


def test_names_that_make_a_pair_color_the_shot_again_and_other_names_do_not(walk: Path, tmp_path: Path) -> None:
    file = tmp_path / "hero.gpl"
    lines = ["GIMP Palette", "210 70 45", "20 40 200"]
    colored = []
    for first, second in (("", ""), ("coat", "sky"), ("coat", "coat shadow")):
        file.write_text("\n".join([lines[0], f"{lines[1]} {first}", f"{lines[2]} {second}", ""]))
        colored.append(len(color(walk, colorizer=PaintsTheKeysColor(), preset=with_palette(file)).colored))
    assert colored == [2, 0, 2]


def light(encoded: NDArray[Any]) -> NDArray[Any]:
    """IEC 61966-2-1, for values that are not nearly black."""
    return ((encoded + 0.055) / 1.055) ** 2.4


def encoded(linear: NDArray[Any]) -> NDArray[Any]:
    """The way back."""
    return 1.055 * linear ** (1 / 2.4) - 0.055


def test_another_palette_colors_the_shot_again_and_the_same_one_elsewhere_does_not(walk: Path, tmp_path: Path) -> None:
    first, copy = gpl(tmp_path / "hero.gpl", OFFICIAL), gpl(tmp_path / "copies" / "same.gpl", OFFICIAL)
    color(walk, colorizer=PaintsTheKeysColor(), preset=with_palette(first))
    assert color(walk, colorizer=PaintsTheKeysColor(), preset=with_palette(copy)).colored == []
    other = gpl(tmp_path / "other.gpl", (205, 78, 50))
    assert len(color(walk, colorizer=PaintsTheKeysColor(), preset=with_palette(other)).colored) == 2


def test_the_manifest_names_the_palette_by_a_relative_path(walk: Path, tmp_path: Path) -> None:
    official = gpl(tmp_path / "pal" / "hero.gpl", OFFICIAL)
    done = color(walk, colorizer=PaintsTheKeysColor(), preset=with_palette(official))
    manifest = read_manifest(done.plans[0].out)
    assert manifest.palette is not None and manifest.palette.path == "../pal/hero.gpl"
    assert manifest.settings["finish"]["palette_file"] == "../pal/hero.gpl"


def test_each_shot_of_a_tree_has_the_palette_of_its_name(tmp_path: Path) -> None:
    for name in ("sc01", "sc02"):
        draw_shot(tmp_path / "film" / name, (1,))
        gpl(tmp_path / "pal" / f"{name}.gpl", OFFICIAL)
    preset = with_palette(tmp_path / "pal" / "{shot}.gpl")
    draw_key(tmp_path / "key.png")
    plans = plan_shots(ShotRequest((str(tmp_path / "film"),), (str(tmp_path / "key.png"),), preset=preset))
    assert [plan.palette_file.name for plan in plans if plan.palette_file is not None] == ["sc01.gpl", "sc02.gpl"]


def test_a_palette_without_colors_is_named_before_anything_is_colored(walk: Path, tmp_path: Path) -> None:
    with pytest.raises(PresetError, match=r"hero\.gpl"):
        color(walk, preset=with_palette(gpl(tmp_path / "hero.gpl")))
