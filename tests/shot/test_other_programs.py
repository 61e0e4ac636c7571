"""What programs that are not ours read in the files of a shot; `benchmarks.opened` asks larger ones, too."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import OpenEXR
import pytest

from colorcli.presets import LayerSettings, OutputSettings, Preset
from tests.shot.studio import Outcome, color, draw_shot

PARTS = ["beauty", "matte", "line", "color", "shade", "flat", "paper"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One frame with all of its layers, as every kind of file."""
    names = ("color", "line", "matte", "flat", "shade", "paper")
    layers = LayerSettings(names=names, files=("sequences", "exr", "psd"))
    outcome: Outcome = color(draw_shot(tmp_path_factory.mktemp("shown") / "walk", (1,)), preset=Preset(layers=layers))
    return outcome.plans[0].out


def said(name: str, package: str, *words: object) -> str:
    """What a program says of some files; skips the test where it is not installed."""
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}: apt-get install {package}")
    run = subprocess.run([name, *map(str, words)], capture_output=True, text=True, timeout=60, check=True)
    return run.stdout


def test_openexr_itself_finds_named_parts_that_make_the_frame_again(out: Path) -> None:
    with OpenEXR.File(str(out / "layers" / "walk.0001.exr"), separate_channels=True) as file:
        assert [part.name() for part in file.parts] == PARTS
        planes = {}
        for part in file.parts:
            assert part.header["chromaticities"] == pytest.approx((0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329))
            pixels = {name.rsplit(".", 1)[-1]: channel.pixels for name, channel in part.channels.items()}
            assert {plane.dtype for plane in pixels.values()} == {np.dtype(np.float16)}
            planes[part.name()] = {name: plane.astype(np.float64) for name, plane in pixels.items()}
    for letter in "RGB":
        made = planes["paper"][letter]
        for name in ("color", "line"):
            made = planes[name][letter] + made * (1 - planes[name]["A"])
        assert np.abs(made - planes["beauty"][letter]).max() <= 3 * 2**-12   # of three files that are rounded to halfs


def test_no_chunk_of_a_png_is_at_fault(out: Path) -> None:
    files = sorted(out.rglob("*.png"))
    assert len(files) == 7
    said("pngcheck", "pngcheck", "-q", *files)   # ends with an error where it finds one


@pytest.mark.parametrize(("kind", "suffix"), [("png16", ".png"), ("tiff8", ".tif"), ("jpeg", ".jpg")])
def test_exiftool_reads_the_license_of_the_weights(tmp_path: Path, kind: str, suffix: str) -> None:
    preset = Preset(output=OutputSettings(format=kind))  # type: ignore[arg-type]
    made = color(draw_shot(tmp_path / "walk", (1,)), preset=preset).plans[0].out / f"walk.0001{suffix}"
    text = said("exiftool", "libimage-exiftool-perl", made)
    assert "license Apache-2.0" in text and "compositeWithTrainedAlgorithmicMedia" in text


def test_imagemagick_finds_each_layer_of_a_psd(out: Path) -> None:
    text = said("identify", "imagemagick", "-format", "%m %wx%h\n", out / "layers" / "walk.0001.psd")
    whole, *layers = text.splitlines()
    assert len(layers) == 6 and {line.split()[0] for line in (whole, *layers)} == {"PSD"}
    assert whole in layers   # the paper is as large as the frame, and the others are not larger
