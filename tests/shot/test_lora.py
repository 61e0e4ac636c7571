"""LoRA files on a shot: what makes a frame new, what is recorded, what is told."""

from pathlib import Path

import pytest

from colorcli.cli.main import main
from colorcli.errors import PresetError, WeightsError
from colorcli.model.lora_file import check_loras
from colorcli.presets import PATH_KEYS, LoraSettings, Preset, load_preset
from colorcli.shot.engine import lora_entry, recorded_settings, settings_digest
from colorcli.shot.manifest import read_manifest, sha256_of
from colorcli.shot.plan import ShotRequest, plan_shots
from colorcli.variants import METHOD_VERSION
from tests.model.lora_made import VALUES, halves, lora_file, peft_names
from tests.shot.studio import MODEL, color, draw_shot


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    return draw_shot(tmp_path / "walk", (1, 2))


def styled(*files: Path, strength: float = 1.0) -> Preset:
    return Preset(lora=tuple(LoraSettings(file=str(file), strength=strength) for file in files))


def other_file(path: Path) -> Path:
    return lora_file(path, peft_names({VALUES: halves(192, 96, seed=9)}))


def test_a_lora_and_its_strength_and_its_content_make_frames_new_and_its_name_does_not(
    walk: Path, tmp_path: Path
) -> None:
    file = lora_file(tmp_path / "show.safetensors")
    assert color(walk).colored == ["walk.0001", "walk.0002"]
    assert color(walk, preset=styled(file)).colored == ["walk.0001", "walk.0002"]
    assert color(walk, preset=styled(file.rename(tmp_path / "renamed.safetensors"))).colored == []
    assert len(color(walk, preset=styled(tmp_path / "renamed.safetensors", strength=0.5)).colored) == 2
    other_file(tmp_path / "renamed.safetensors")
    assert len(color(walk, preset=styled(tmp_path / "renamed.safetensors", strength=0.5)).colored) == 2


def test_which_of_two_files_has_which_strength_counts(tmp_path: Path) -> None:
    one, other = lora_file(tmp_path / "a.safetensors"), other_file(tmp_path / "b.safetensors")
    digests = []
    for first, second in ((one, other), (other, one)):
        preset = Preset(lora=(LoraSettings(file=str(first)), LoraSettings(file=str(second), strength=0.5)))
        entries = [lora_entry(number, file) for number, file in enumerate(check_loras(preset), 1)]
        digests.append(settings_digest(preset, MODEL, entries))
    assert digests[0] != digests[1]


def test_frames_that_were_colored_before_there_were_lora_files_stay_up_to_date() -> None:
    settings = Preset().model_dump(mode="json", exclude={"model", "lora", "layers", "checks"})
    for path in PATH_KEYS:
        group, name = path.split(".")
        del settings[group][name]
    before = sha256_of({"method": METHOD_VERSION, "settings": settings, "weights": MODEL.sha256})
    assert settings_digest(Preset(), MODEL) == before


def test_the_manifest_says_which_file_was_used_and_whose_it_is(walk: Path, tmp_path: Path) -> None:
    mine = lora_file(tmp_path / "mine.safetensors", license="LicenseRef-show")
    unknown = other_file(tmp_path / "unknown.safetensors")
    outcome = color(walk, preset=styled(mine, unknown))
    manifest = read_manifest(outcome.plans[0].out)
    said = [(one.used_for, one.name, one.license, one.license_from) for one in manifest.models[1:]]
    assert said == [("lora.1", "mine.safetensors", "LicenseRef-show", "file"),
                    ("lora.2", "unknown.safetensors", "not stated", "nowhere")]
    assert [entry["file"] for entry in manifest.settings["lora"]] == ["../mine.safetensors", "../unknown.safetensors"]
    assert any("mine.safetensors, license LicenseRef-show" in text for text in outcome.listener.warnings)


def test_a_lora_that_does_not_fit_stops_the_plan_before_anything_is_loaded(walk: Path, tmp_path: Path) -> None:
    file = lora_file(tmp_path / "xl.safetensors", base="xl")
    request = ShotRequest((str(walk),), (str(tmp_path / "key.png"),), preset=styled(file))
    with pytest.raises(WeightsError, match=r"lora, entry 1: xl\.safetensors was trained on xl"):
        plan_shots(request)


def test_a_dry_run_names_the_file_its_strength_and_its_license(
    walk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = lora_file(tmp_path / "show.safetensors", license="MIT")
    style = tmp_path / "style.yaml"
    style.write_text("extends: cel\nlora:\n  - file: show.safetensors\n    strength: 0.8\n")
    assert main([str(walk), "--ref", str(tmp_path / "key.png"), "--preset", str(style), "--dry-run"]) == 0
    assert f"lora    {file} x 0.8, license MIT" in capsys.readouterr().out


def test_a_file_in_a_preset_is_meant_from_the_folder_of_the_preset(tmp_path: Path) -> None:
    (tmp_path / "styles").mkdir()
    style = tmp_path / "styles" / "show.yaml"
    style.write_text("lora: [{file: show.safetensors}, {file: /shows/b.safetensors, strength: 0.5}]\n")
    found = load_preset(str(style)).lora
    assert [one.file for one in found] == [str(tmp_path / "styles" / "show.safetensors"), "/shows/b.safetensors"]
    recorded = recorded_settings(load_preset(str(style)), tmp_path)["lora"]
    assert recorded[0]["file"] == "styles/show.safetensors"


@pytest.mark.parametrize(("text", "message"), [
    ("lora: show.safetensors", "lora is \"show.safetensors\", but it must be a list"),
    ("lora: [{strength: 1}]", "lora, entry 1 has no file"),
    ("lora: [{file: a.safetensors, strength: 3}]", "entry 1: strength is 3, but it must be a number, 0 to 2"),
    ("lora: [{path: a.safetensors}]", "lora, entry 1"),
    ("lora: [a.safetensors]", "lora, entry 1 is \"a.safetensors\", but it must be a group of settings"),
])
def test_a_wrong_entry_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    style = tmp_path / "style.yaml"
    style.write_text(text + "\n")
    with pytest.raises(PresetError, match=message):
        load_preset(str(style))
