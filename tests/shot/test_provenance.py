"""What a colored picture says of itself, read back by another library than the one that wrote it."""

from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import PIL.Image
import pytest

import colorcli
from colorcli.images import FORMATS, read_picture, write_picture
from colorcli.presets import OutputSettings, Preset
from colorcli.shot.manifest import ModelEntry, read_manifest, read_records
from colorcli.shot.plan import ShotRequest, plan_shots
from colorcli.shot.run import run_plans
from colorcli.variants import VARIANTS
from tests.shot.studio import MODEL, FakeColorizer, Listener, color, draw_shot

NOTES = {"Software": "colorcli 1", "colorcli.model": "mini, license Apache-2.0, sha256 ab", "umlaut": "Käse"}


def colored(folder: Path, kind: str, model: ModelEntry = MODEL) -> Path:
    """Color one frame as a kind of file, and give its path."""
    shot = draw_shot(folder / "walk", (1,))
    out = color(shot, model=model, preset=Preset(output=OutputSettings(format=kind))).plans[0].out
    (frame,) = out.glob("walk.*")
    return frame


def test_a_png_names_its_weights_their_license_and_the_part_that_a_model_had(tmp_path: Path) -> None:
    frame = colored(tmp_path, "png8")
    with PIL.Image.open(frame) as picture:
        text = picture.text
    assert text["Software"] == f"colorcli {colorcli.__version__}"
    assert text["colorcli.model"] == f"mini, license Apache-2.0, sha256 {MODEL.sha256}"
    assert text["DigitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    (record,) = read_records(frame.parent)
    assert text["colorcli.fingerprint"] == record.fingerprint
    assert read_manifest(frame.parent).models[0].sha256 in text["colorcli.model"]


def test_an_exr_holds_the_same_as_attributes(tmp_path: Path) -> None:
    source = oiio.ImageInput.open(str(colored(tmp_path, "exr-half")))
    spec = source.spec()
    source.close()
    assert spec.get_string_attribute("colorcli.model").startswith("mini, license Apache-2.0")
    assert spec.get_string_attribute("DigitalSourceType").startswith("http://cv.iptc.org/")


@pytest.mark.parametrize(("kind", "name"), [("tiff16", "a.tif"), ("jpeg", "a.jpg"), ("png16", "a.png")])
def test_other_kinds_of_files_hold_them_as_well_and_the_pixels_stay(kind: str, name: str, tmp_path: Path) -> None:
    picture = np.linspace(0, 1, 24 * 30 * 3, dtype=np.float32).reshape(24, 30, 3)
    write_picture(tmp_path / name, picture, None, FORMATS[kind], NOTES)
    write_picture(tmp_path / f"plain_{name}", picture, None, FORMATS[kind])
    assert np.array_equal(read_picture(tmp_path / name).color, read_picture(tmp_path / f"plain_{name}").color)
    with PIL.Image.open(tmp_path / name) as opened:
        opened.load()
        said = {**opened.info, **{str(tag): value for tag, value in getattr(opened, "tag_v2", {}).items()}}
    words = " ".join(value.decode() if isinstance(value, bytes) else str(value) for value in said.values())
    assert "mini, license Apache-2.0" in words


def test_a_picture_of_the_stand_in_claims_no_model(tmp_path: Path) -> None:
    stand_in = ModelEntry(name="stand-in", sha256="00" * 32, license="Apache-2.0")
    shot = draw_shot(tmp_path / "walk", (1,))

    request = ShotRequest((str(shot),), (str(tmp_path / "key.png"),))
    plans = plan_shots(request)
    run_plans(plans, request.preset, Listener(), load_colorizer=FakeColorizer, model=stand_in, variant=VARIANTS["mini"])
    with PIL.Image.open(plans[0].out / "walk.0001.png") as picture:
        assert "DigitalSourceType" not in picture.text and "stand-in" in picture.text["colorcli.model"]
