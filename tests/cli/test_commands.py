"""The commands beside the main one: what they refuse before anything large is loaded, and what they print."""

import json
from pathlib import Path

import pytest

from colorcli.cli.bench import parse_size
from colorcli.cli.doctor import Finding, about_folders, about_memory, memory_bytes
from colorcli.cli.main import main
from colorcli.errors import UsageError
from tests.shot.studio import FakeColorizer, draw, draw_key, hollow_model


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(hollow_model(tmp_path / "model"))


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("text", "size"), [("512x512", (512, 512)), ("1280X720", (1280, 720))])
def test_a_frame_size_is_width_by_height(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "512", "0x0", "10x10", "512x", "99999x99999", "512x512x3"])
def test_a_size_that_no_frame_has_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


def test_a_recipe_that_is_not_there_is_exit_code_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "nowhere.yaml"]) == 4
    assert last_line(capsys) == "colorcli: error[preset]: there is no recipe nowhere.yaml"


def test_a_stage_that_the_recipe_lacks_is_named_with_those_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "mini", "--only", "taggr"]) == 2
    assert "it has autoencoder, tagger" in capsys.readouterr().err


def test_evaluate_prints_a_row_for_each_shot(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr("colorcli.cli.render.load_engine", lambda *asked, **more: FakeColorizer())
    for name in ("front", "side"):
        draw(tmp_path / "data" / name / "line" / "0001.png")
        draw_key(tmp_path / "data" / name / "color" / "0001.png")
        draw_key(tmp_path / "data" / name / "key.png")
    assert main(["evaluate", str(tmp_path / "data"), "--cross", "--json", "--model", model]) == 0
    *rows, end = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert end["summary"]["model"]["name"] == "mini"
    assert [(row["shot"], row["key"]) for row in rows] == [
        ("front", "front"),
        ("front", "side"),
        ("side", "front"),
        ("side", "side"),
    ]
    assert main(["evaluate", str(tmp_path / "data"), "--model", model]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["shot", "front", "side", "mean"]


def test_evaluate_without_data_says_so_before_the_model_is_loaded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["evaluate", str(tmp_path / "nowhere")]) == 3
    assert last_line(capsys).startswith("colorcli: error[shot]: there is no folder")


def test_models_list_tells_the_license(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mini"))
    assert "Apache-2.0" in row


def test_models_info_tells_every_file_with_its_hash(capsys: pytest.CaptureFixture[str], model: str) -> None:
    assert main(["models", "info", model]) == 0
    out = capsys.readouterr().out
    assert "unet.safetensors" in out
    assert "license" in out


def test_models_verify_names_the_damaged_file_with_exit_code_5(capsys: pytest.CaptureFixture[str], model: str) -> None:
    assert main(["models", "verify", model]) == 0
    (Path(model) / "unet.safetensors").write_bytes(b"now something else")
    assert main(["models", "verify", model]) == 5
    assert "unet.safetensors is missing or damaged" in last_line(capsys)


def test_memory_is_told_within_what_the_machine_has() -> None:
    available, total = memory_bytes()
    assert available is not None
    assert total is not None
    assert 0 < available <= total


def test_too_little_memory_is_a_reason_why_mini_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colorcli.cli.doctor.memory_bytes", lambda: (2**28, 2**30))
    (finding,) = about_memory()
    assert finding.failure is not None
    assert finding.failure.exit_code == 6


def test_a_temporary_folder_that_cannot_be_written_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    (finding,) = about_folders()
    assert isinstance(finding, Finding)
    assert finding.failure is not None


def test_doctor_ends_with_5_where_the_weights_are_damaged(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    (Path(model) / "unet.safetensors").write_bytes(b"short")
    monkeypatch.setattr("colorcli.model.weights.shipped_folder", lambda name: Path(model))
    assert main(["doctor", "--quick"]) == 5
    assert last_line(capsys).startswith("colorcli: error[weights]: ")


def test_doctor_says_plainly_that_mini_can_color(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr("colorcli.model.weights.shipped_folder", lambda name: Path(model))
    monkeypatch.setattr("colorcli.cli.doctor.memory_bytes", lambda: (2**33, 2**34))
    assert main(["doctor", "--quick"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "mini can color on this machine."
    for subject in ("device", "attention", "memory", "model mini", "OpenImageIO", "xformers"):
        assert subject in out
