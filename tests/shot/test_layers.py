"""Layers as files: what is written beside the frames, read back by libraries that are not ours; kept and resumed."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio
import pytest
from numpy.typing import NDArray
from psd_tools import PSDImage
from psd_tools.composite import composite

from colorcli.cli.color import with_layers
from colorcli.cli.main import main
from colorcli.errors import MissingExtraError, UsageError
from colorcli.presets import BackgroundSettings, LayerFiles, LayerName, LayerSettings, OutputSettings, Preset
from colorcli.shot.layer_files import layer_files
from colorcli.shot.manifest import read_records
from colorcli.shot.merge import merge
from colorcli.shot.plan import ShotRequest, plan_shots
from colorcli.shot.verify import verify
from tests.shot.studio import FakeColorizer, Outcome, cannot_color, color, draw, draw_shot

ALL: tuple[LayerName, ...] = ("color", "line", "matte", "flat", "shade", "paper")
Plane = tuple[NDArray[np.float64], NDArray[np.float64]]


def wanted(*names: LayerName, files: tuple[LayerFiles, ...] = ("sequences",), **groups: Any) -> Preset:
    """The default preset with layers."""
    return Preset(layers=LayerSettings(names=names or ALL, files=files), **groups)


def run(shot: Path, preset: Preset | None = None, **asked: Any) -> Outcome:
    return color(shot, preset=preset or wanted(), **asked)


def out_of(outcome: Outcome) -> Path:
    return outcome.plans[0].out


def read(path: Path) -> NDArray[np.float64]:
    """Pixels as they lie in the file, (H, W, channels), 0..1."""
    straight = oiio.ImageSpec()
    straight.attribute("oiio:UnassociatedAlpha", 1)
    source = oiio.ImageInput.open(str(path), straight)
    assert source is not None, path
    spec = source.spec()
    pixels = source.read_image(0, 0, 0, spec.nchannels, oiio.FLOAT)
    source.close()
    return np.asarray(pixels, np.float64).reshape(spec.height, spec.width, spec.nchannels)


def parts_of(path: Path) -> dict[str, tuple[Any, NDArray[np.float64]]]:
    """The parts of an EXR file by name: header and pixels."""
    source = oiio.ImageInput.open(str(path))
    assert source is not None, path
    found = {}
    while source.seek_subimage(len(found), 0):
        spec = source.spec()
        pixels = source.read_image(len(found), 0, 0, spec.nchannels, oiio.FLOAT)
        name = spec.getattribute("oiio:subimagename")
        found[name] = spec, np.asarray(pixels, np.float64).reshape(spec.height, spec.width, spec.nchannels)
    source.close()
    return found


def plane(pixels: NDArray[np.float64], premultiplied: bool) -> Plane:
    """Color multiplied by alpha, and alpha."""
    if pixels.shape[2] == 3:
        return pixels, np.ones(pixels.shape[:2])
    alpha = pixels[..., 3]
    return (pixels[..., :3] if premultiplied else pixels[..., :3] * alpha[..., None]), alpha


def over(*stack: Plane) -> Plane:
    """Porter and Duff, from the bottom up."""
    below, cover = stack[0]
    for top, alpha in stack[1:]:
        below, cover = top + (1 - alpha)[..., None] * below, alpha + (1 - alpha) * cover
    return below, cover


def shaded(flat: Plane, shade: NDArray[np.float64]) -> Plane:
    return flat[0] * shade, flat[1]


def cels(folder: Path) -> Path:
    """A shot of one drawing with a soft edge of alpha around it."""
    y, x = np.mgrid[:64, :96]
    alpha = np.clip(34 - np.hypot(x - 28, y - 26), 0, 1).astype(np.float32)
    draw_shot(folder, (1,))
    draw(folder / "walk.0001.png", 1, alpha=alpha)
    return folder


@pytest.mark.parametrize("rule", ["white", "transparent", "keep"])
@pytest.mark.parametrize("kind", ["png8", "png16", "tiff16"])
def test_sequences_laid_over_each_other_are_the_frame_to_rounding(tmp_path: Path, kind: str, rule: str) -> None:
    groups = {"output": OutputSettings(format=kind), "background": BackgroundSettings(rule=rule)}  # type: ignore[arg-type]
    out = out_of(run(cels(tmp_path / "walk"), wanted(**groups)))
    frame = next(path for path in out.iterdir() if path.name.startswith("walk."))
    layers = {path.name: read(path / frame.name) for path in (out / "layers").iterdir()}
    assert set(layers) == set(ALL) - ({"paper"} if rule == "transparent" else set())
    below = [plane(layers["paper"], False)] if "paper" in layers else []
    made = plane(read(frame), False)
    level = 1 / (255 if kind == "png8" else 65535)
    # Each of up to four files is rounded to half a level, in color and in alpha.
    for colors in (plane(layers["color"], False), shaded(plane(layers["flat"], False), layers["shade"])):
        whole = over(*below, colors, plane(layers["line"], False))
        assert np.abs(whole[0] - made[0]).max() <= 2.5 * level
        assert np.abs(whole[1] - made[1]).max() <= 1.5 * level


@pytest.mark.parametrize("rule", ["white", "transparent"])
def test_an_exr_holds_named_parts_in_half_linear_and_multiplied_by_alpha(tmp_path: Path, rule: str) -> None:
    background = BackgroundSettings(rule=rule)  # type: ignore[arg-type]
    out = out_of(run(cels(tmp_path / "walk"), wanted(files=("exr",), background=background)))
    parts = parts_of(out / "layers" / "walk.0001.exr")
    paper = [] if rule == "transparent" else ["paper"]
    assert list(parts) == ["beauty", "matte", "line", "color", "shade", "flat", *paper]
    for name, (spec, pixels) in parts.items():
        assert str(spec.format) == "half"
        assert spec.getattribute("oiio:ColorSpace") == "lin_rec709_scene"
        assert np.allclose(spec.getattribute("chromaticities"), [0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329])
        assert spec.getattribute("colorcli.model", oiio.STRING).startswith("mini, license Apache-2.0")
        if name not in ("beauty", "matte"):
            assert spec.channelnames[:3] == tuple(f"{name}.{channel}" for channel in "RGB")
        if pixels.shape[2] == 4:
            assert (pixels[..., :3].max(axis=2) <= pixels[..., 3] + 1e-3).all()
    planes = {name: plane(pixels, True) for name, (_, pixels) in parts.items() if pixels.shape[2] > 1}
    for colors in (planes["color"], shaded(planes["flat"], parts["shade"][1])):
        made = over(*[planes[name] for name in paper], colors, planes["line"])
        assert np.abs(made[0] - planes["beauty"][0]).max() <= 3 * 2**-12   # of three files that are rounded to halfs
        assert np.abs(made[1] - planes["beauty"][1]).max() <= 3 * 2**-12
    encoded = plane(read(out / "walk.0001.png"), False)
    light = np.where(encoded[0] <= 0.04045, encoded[0] / 12.92, ((encoded[0] + 0.055) / 1.055) ** 2.4)
    opaque = encoded[1] == 1
    assert np.abs(light - planes["beauty"][0])[opaque].max() < 2.3 / 255 / 2 + 2**-12   # half a level where it is steep


@pytest.mark.parametrize("kind", ["png8", "png16"])
@pytest.mark.parametrize("rule", ["white", "transparent"])
def test_a_psd_is_the_frame_as_it_opens_and_with_flat_and_shade_on(tmp_path: Path, kind: str, rule: str) -> None:
    groups = {"output": OutputSettings(format=kind), "background": BackgroundSettings(rule=rule)}  # type: ignore[arg-type]
    out = out_of(run(cels(tmp_path / "walk"), wanted(files=("psd",), **groups)))
    opened = PSDImage.open(out / "layers" / "walk.0001.psd")
    assert opened.depth == (8 if kind == "png8" else 16)
    paper = [] if rule == "transparent" else ["paper"]
    assert [layer.name for layer in opened] == [*paper, "flat and shade", "color", "line", "matte"]
    frame = plane(read(out / "walk.0001.png"), False)
    level = 1 / (255 if kind == "png8" else 65535)
    shown = {layer.name: layer for layer in opened}
    for flats in (False, True):
        shown["color"].visible, shown["flat and shade"].visible = not flats, flats
        made, _, alpha = composite(opened, force=True)
        assert np.abs(made * alpha - frame[0]).max() <= 2.5 * level
        assert np.abs(alpha[..., 0] - frame[1]).max() <= 1.5 * level
    merged = plane(read(out / "layers" / "walk.0001.psd"), False)   # what programs show that know no layers
    assert np.abs(merged[0] - frame[0]).max() <= 2.5 * level
    assert np.abs(merged[1] - frame[1]).max() <= level / 2


def test_a_frame_has_the_same_bytes_with_and_without_layers_and_layers_have_the_same_twice(tmp_path: Path) -> None:
    kinds: tuple[LayerFiles, ...] = ("sequences", "exr", "psd")
    shot = draw_shot(tmp_path / "walk", (1, 2))
    plain = run(shot, Preset(), out=tmp_path / "plain").pictures()
    first, second = (out_of(run(shot, wanted(files=kinds), out=tmp_path / name)) for name in ("first", "second"))
    assert plain == {path.name: path.read_bytes() for path in first.glob("walk.*.png")}
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file() and path.parent != first)
    assert len(files) == 2 * (len(ALL) + 2)
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)


def test_layers_of_a_jpeg_are_png_and_those_of_a_linear_exr_are_linear(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1,))
    jpeg = out_of(run(shot, wanted("color", output=OutputSettings(format="jpeg")), out=tmp_path / "jpeg"))
    assert read(jpeg / "layers" / "color" / "walk.0001.png").shape[2] == 4
    exr = out_of(run(shot, wanted("shade", "paper", "color", "line", output=OutputSettings(format="exr-half")),
                     out=tmp_path / "exr"))
    layers = {name: read(exr / "layers" / name / "walk.0001.exr") for name in ("paper", "color", "line")}
    made = over(*[plane(layers[name], True) for name in ("paper", "color", "line")])
    assert np.abs(made[0] - read(exr / "walk.0001.exr")[..., :3]).max() <= 3 * 2**-12


# --- records -----------------------------------------------------------------------------------------------------


def test_layers_stand_in_the_record_and_are_verified(tmp_path: Path) -> None:
    out = out_of(run(draw_shot(tmp_path / "walk", (1, 2)), wanted("color", "line", files=("sequences", "psd"))))
    records = read_records(out)
    assert set(records[0].outputs) == {f"layers/{name}/walk.0001.png" for name in ("color", "line")} | {
        "layers/walk.0001.psd"
    }
    assert records[0].layers["layers/walk.0001.psd"] == ("color", "line")
    assert verify(out) == []
    (out / "layers" / "line" / "walk.0002.png").write_bytes(b"painted over")
    (out / "layers" / "walk.0001.psd").unlink()
    assert sorted((one.kind, one.frame) for one in verify(out) if one.fatal) == [
        ("altered", "walk.0002"), ("missing", "walk.0001")
    ]


def test_a_second_run_colors_only_the_frame_whose_layer_was_touched(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1, 2, 3))
    out = out_of(run(shot))
    assert run(shot).colored == []
    (out / "layers" / "shade" / "walk.0002.png").unlink()
    (out / "layers" / "flat" / "walk.0003.png").write_bytes(b"")
    assert run(shot).colored == ["walk.0002", "walk.0003"]
    assert verify(out) == []


def test_fewer_layers_or_none_leave_frames_as_they_are_and_more_color_them_again(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1, 2))
    run(shot, wanted("color", "line", files=("exr",)))
    assert run(shot, wanted("color", files=("exr",))).colored == []
    assert run(shot, Preset()).colored == []
    assert run(shot, wanted("color", "line", "matte", files=("exr",))).colored == ["walk.0001", "walk.0002"]
    assert run(shot, wanted("color", files=("sequences",))).colored == ["walk.0001", "walk.0002"]


def test_layers_that_were_asked_for_one_after_the_other_are_all_there(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1, 2))
    for names, files in (("color",), ("sequences",)), (("line", "matte"), ("sequences", "psd")), (("color",), ("exr",)):
        out = out_of(run(shot, wanted(*names, files=files)))  # type: ignore[arg-type]
    assert {path.name for path in (out / "layers").iterdir()} == {
        "color", "line", "matte", "walk.0001.psd", "walk.0002.psd", "walk.0001.exr", "walk.0002.exr"
    }
    assert verify(out) == []
    assert run(shot, wanted("color", "line")).colored == []
    assert run(shot, wanted("color", files=("psd",))).colored == ["walk.0001", "walk.0002"]


def test_a_held_drawing_has_layers_of_its_own(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1, 2))
    shutil.copy(shot / "walk.0001.png", shot / "walk.0003.png")
    outcome = run(shot, wanted(files=("sequences", "exr")))
    out = out_of(outcome)
    assert outcome.listener.status()["walk.0003"] == "held"
    assert outcome.colorizer.colored == 2
    for path in ("layers/color/walk.{}.png", "layers/matte/walk.{}.png", "layers/walk.{}.exr"):
        assert (out / path.format("0003")).read_bytes() == (out / path.format("0001")).read_bytes()
    assert verify(out) == []


def test_a_held_drawing_is_not_copied_from_a_frame_that_has_no_layers(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1,))
    run(shot, Preset())
    shutil.copy(shot / "walk.0001.png", shot / "walk.0002.png")
    run(shot, wanted("color"), frames="2")
    out = shot.with_name("walk_color")
    assert (out / "layers" / "color" / "walk.0002.png").is_file()
    assert verify(out) == []


def test_layers_of_an_older_picture_go_when_the_frame_is_colored_without_them(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1, 2))
    out = out_of(run(shot, wanted("color")))
    draw(shot / "walk.0002.png", 7)
    assert run(shot, Preset()).colored == ["walk.0002"]
    assert [path.name for path in (out / "layers" / "color").iterdir()] == ["walk.0001.png"]
    assert verify(out) == []


def test_a_frame_that_fails_has_no_layers_and_the_others_have_theirs(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1, 2, 3))
    outcome = run(shot, wanted("line"), colorizer=FakeColorizer(before_color=cannot_color(1)))
    assert outcome.result.exit_code == 7
    assert sorted(path.stem for path in (out_of(outcome) / "layers" / "line").iterdir()) == ["walk.0001", "walk.0003"]


def test_a_frame_is_recorded_only_when_all_of_its_files_are_there(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1, 2))
    out = shot.with_name("walk_color")
    (out / "walk.0002.png").mkdir(parents=True)   # the frame itself cannot be written, its layers can
    outcome = run(shot, wanted("color"))
    assert outcome.result.exit_code == 9
    assert "walk.0002" not in {record.frame for record in read_records(out)}
    (out / "walk.0002.png").rmdir()
    assert "walk.0002" in run(shot, wanted("color")).colored
    assert verify(out) == []


def test_no_temporary_file_stays_behind(tmp_path: Path) -> None:
    out = out_of(run(draw_shot(tmp_path / "walk", (1, 2)), wanted(files=("sequences", "exr", "psd"))))
    assert [path for path in out.rglob(".*")] == []


def test_what_a_killed_process_was_writing_is_taken_away(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1,))
    out = out_of(run(shot, wanted("color", files=("sequences", "exr"))))
    names = (".walk.0001.exr.4711-0f3c22a9.tmp", "color/.walk.0001.png.4711-0f3c.part")
    left = [out / "layers" / name for name in names]
    for path in left:
        path.write_bytes(b"half a pic")
        os.utime(path, (0, 0))   # long ago
    run(shot, wanted("color", files=("sequences", "exr")))
    assert not any(path.exists() for path in left)


def test_layers_come_along_when_machines_without_a_disk_in_common_are_merged(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1, 2))
    here, there = (
        out_of(run(shot, wanted("matte"), frames=frames, out=tmp_path / name))
        for frames, name in (("1", "here"), ("2", "there"))
    )
    assert "layers/matte/walk.0002.png" in merge(here, [there]).copied
    assert (here / "layers" / "matte" / "walk.0002.png").is_file()
    assert run(shot, wanted("matte"), out=here).colored == []


# --- what is wrong -----------------------------------------------------------------------------------------------


def test_a_file_where_the_layers_go_ends_the_run_with_words(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1,))
    out = shot.with_name("walk_color")
    out.mkdir()
    (out / "layers").write_text("mine")
    outcome = run(shot)
    assert outcome.result.exit_code == 9
    assert outcome.result.error is not None and "layers" in outcome.result.error.message
    assert (out / "layers").read_text() == "mine"


def test_two_frames_whose_layers_would_have_one_name_are_refused(tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1,))
    for name in ("tree.png", "tree.tga"):
        draw(shot / name, 2)
    request = ShotRequest((str(shot),), (str(tmp_path / "key.png"),), preset=wanted("color", files=("exr",)))
    with pytest.raises(UsageError, match=r"tree\.png: .*layers/tree\.exr"):
        plan_shots(request)


def test_a_psd_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shot = draw_shot(tmp_path / "walk", (1,))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    request = ShotRequest((str(shot),), (str(tmp_path / "key.png"),), preset=wanted("color", files=("psd",)))
    with pytest.raises(MissingExtraError) as caught:
        plan_shots(request)
    assert "colorcli[psd]" in (caught.value.hint or "")


# --- the command line --------------------------------------------------------------------------------------------


def test_layers_are_short_for_settings() -> None:
    assert with_layers(["color,line", "matte"], ["exr, psd"]) == [
        "layers.names=[color, line, matte]", "layers.files=[exr, psd]"
    ]
    assert with_layers(["all"], None) == ["layers.names=[color, line, matte, flat, shade, paper]"]
    assert with_layers(["color,"], []) == ["layers.names=[color]"]
    assert with_layers(None, None) == []
    with pytest.raises(UsageError, match="names nothing"):
        with_layers([" "], None)


def test_a_layer_that_is_none_is_refused_with_the_nearest(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1,))
    assert main([str(shot), "--ref", str(tmp_path / "key.png"), "--layers", "color,lines"]) == 2
    assert "--layers lines is not known" in (told := capfd.readouterr().err)
    assert "did you mean line?" in told


def test_a_kind_of_file_without_a_layer_is_refused(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1,))
    assert main([str(shot), "--ref", str(tmp_path / "key.png"), "--layers-as", "exr"]) == 2
    assert "no layer is named" in capfd.readouterr().err


def test_a_dry_run_names_the_files_of_the_first_frame(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk", (1,))
    asked = ["--layers", "color,line", "--layers-as", "sequences,exr", "--engine", "stand-in", "--dry-run"]
    assert main([str(shot), "--ref", str(tmp_path / "key.png"), *asked]) == 0
    told = capfd.readouterr().out
    assert "layers/line/walk.0001.png" in told
    assert "color, line in" in told and "layers/walk.0001.exr" in told


def test_paper_is_no_layer_of_what_has_nothing_behind() -> None:
    cut_out = wanted("color", "paper", background=BackgroundSettings(rule="transparent"))
    assert [file.names for file in layer_files("walk.0001.png", cut_out)] == [("color",)]
    assert [file.names for file in layer_files("walk.0001.jpg", cut_out)] == [("color",), ("paper",)]
