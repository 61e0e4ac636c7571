"""--engine and `models export`: what is refused before anything is loaded, and what an engine does not change."""

import importlib.util
import json
from pathlib import Path

import pytest

from colorcli.cli.main import main
from tests.shot.studio import FakeColorizer, draw_shot, hollow_model

pytestmark = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="the extra is not installed")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(arguments)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--device", "cuda"], "runs on the cpu, and --device is cuda"),
        (["--precision", "bf16"], "--precision bf16"),
        (["--compile", "on"], "--compile on"),
        (["--attention", "xformers"], "xformers"),
    ],
)
def test_an_engine_of_the_cpu_with_options_of_torch_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    shot = draw_shot(tmp_path / "walk", [1])
    asked = [str(shot), "--ref", str(tmp_path / "key.png"), "--engine", "openvino", *options]
    code, told = refused(capsys, *asked)
    assert code == 2 and says in told
    assert not (tmp_path / "walk_color").exists()


def test_settings_that_only_torch_can_do_are_told_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shot = draw_shot(tmp_path / "walk", [1])
    asked = [str(shot), "--ref", str(tmp_path / "key.png"), "--engine", "openvino", "--set", "injection.on=true"]
    code, told = refused(capsys, *asked)
    assert code == 4 and "injection.on" in told and "leave --engine out" in told


def test_a_dry_run_tells_what_is_wrong_with_the_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shot = draw_shot(tmp_path / "walk", [1])
    code, told = refused(capsys, str(shot), "--ref", str(tmp_path / "key.png"), "--engine", "openvno", "--dry-run")
    assert code == 2 and "openvno is neither an engine nor a folder" in told


def test_a_shot_that_torch_colored_is_not_colored_again_by_another_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], colorizer: FakeColorizer
) -> None:
    shot, model = draw_shot(tmp_path / "walk", [1, 2]), hollow_model(tmp_path / "model")
    asked = [str(shot), "--ref", str(tmp_path / "key.png"), "--model", str(model)]
    assert main(asked) == 0
    assert main([*asked, "--engine", "openvino"]) == 0
    assert colorizer.colored == 2
    records = [json.loads(line) for line in (tmp_path / "walk_color" / "frames.jsonl").read_text().splitlines()]
    assert {record["status"] for record in records[-2:]} == {"skipped"}


def test_the_engine_of_a_run_is_recorded(tmp_path: Path, colorizer: FakeColorizer) -> None:
    shot, model = draw_shot(tmp_path / "walk", [1]), hollow_model(tmp_path / "model")
    colorizer.describe = lambda: {"device": "cpu", "engine": "openvino 2026.4.1"}  # type: ignore[method-assign]
    assert main([str(shot), "--ref", str(tmp_path / "key.png"), "--model", str(model), "--engine", "openvino"]) == 0
    (run,) = json.loads((tmp_path / "walk_color" / "manifest.json").read_text())["runs"]
    assert run["engine"] == "openvino 2026.4.1"


def test_only_models_like_mini_are_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = refused(capsys, "models", "export", "xl", "-o", str(tmp_path / "xl"))
    assert code == 5 and "mini" in told
    code, told = refused(capsys, "models", "export", "mini", "--engine", "tensorrt", "-o", str(tmp_path / "mini"))
    assert code == 2 and "tensorrt" in told
    assert not list(tmp_path.iterdir())
