"""The command line as people meet it: any order, every message with something to do, every failure with its number."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from colorcli import __version__
from colorcli.cli.main import calm_idle_threads, main
from colorcli.cli.options import Format
from colorcli.presets import preset_keys, shipped_presets

ROOT = Path(__file__).parent.parent.parent


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, list[str]]:
    """(exit code, stdout, lines of stderr) of a command line."""
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err.splitlines()


def assert_is_told(lines: list[str], kind: str, message: str, hint: str | None = None) -> None:
    """The three lines of a failure: what, what to do, and the one for log scrapers at the very end."""
    assert lines[-1].startswith(f"colorcli: error[{kind}]: {message}")
    errors = [line for line in lines if line.startswith("error: ")]
    assert errors == [f"error: {lines[-1].split(']: ', 1)[1]}"]
    if hint:
        assert f"try:   {hint}" in lines


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"colorcli {__version__}\n", [])


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_shows_the_bare_form_and_every_command(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    code, out, _ = run(capsys, flag)
    assert code == 0
    for word in (
        "SHOT...",
        "--ref",
        "--dry-run",
        "--progress",
        "prepare",
        "presets",
        "manifest",
        "doctor",
        "Exit codes",
    ):
        assert word in out


def test_help_after_a_shot_is_the_same_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "walk", "--help") == run(capsys, "--help")


def test_nothing_typed_shows_the_help_and_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert code == 2
    assert "SHOT..." in out
    assert_is_told(err, "usage", "no shot and no command is given", "colorcli SHOT --ref KEY")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["walk", "--rf", "key.png"], "there is no option --rf", "did you mean --ref?"),
        (["walk", "--ref"], "option '--ref' requires an argument", "`colorcli --help` tells what there is"),
        (["--ref", "key.png"], "no shot is given", None),
        (["presetz"], "there is no shot and no command called presetz", "did you mean colorcli presets?"),
        (["-v", "doctor"], "doctor is a command, and a command comes first", "colorcli doctor ..."),
        (
            ["presets", "shw"],
            "no such command 'shw'. Did you mean 'show'?",
            "`colorcli presets --help` tells what there is",
        ),
        (["walk", "--format", "gif"], "invalid value for '--format': 'gif' is not one of 'same', 'png8'", None),
        (["train"], "missing argument 'RECIPE'", "`colorcli train --help` tells what there is"),
        (["manifest"], "missing command", "`colorcli manifest --help` tells what there is"),
    ],
)
def test_a_wrong_command_line_is_explained_with_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str, hint: str | None
) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert_is_told(err, "usage", message, hint)


def test_a_folder_with_the_name_of_a_command_gets_a_hint(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train").mkdir()
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "train", "--ref", "key.png")
    assert code == 2
    assert any("to color the folder train write ./train" in line for line in err)


def test_a_wrong_preset_is_exit_code_4(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, str(tmp_path), "--ref", "key.png", "--preset", "pencl")
    assert code == 4
    assert_is_told(err, "preset", 'there is no preset called "pencl"', "did you mean pencil?")


def test_a_wrong_setting_is_exit_code_4(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "--set", "sampling.step=3", str(tmp_path), "--ref", "key.png")
    assert code == 4
    assert_is_told(err, "preset", "--set sampling.step=3: sampling.step is no setting", "did you mean sampling.steps?")


def test_an_unknown_model_is_exit_code_5(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "models", "verify", "mnii")
    assert code == 5
    assert_is_told(err, "weights", 'there is no model called "mnii"', "did you mean mini?")


def test_a_message_of_several_lines_is_one_line_for_the_log_scraper(capsys: pytest.CaptureFixture[str]) -> None:
    from colorcli import console

    console.complain("frame", "walk.0001.png\ncannot be read")
    assert capsys.readouterr().err.splitlines()[-1] == "colorcli: error[frame]: walk.0001.png cannot be read"


def test_what_nobody_expected_is_our_mistake_with_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down() -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("colorcli.presets.shipped_presets", break_down)
    code, _, err = run(capsys, "presets", "list")
    assert code == 1
    assert err[0] == "  Traceback (most recent call last):"
    assert (
        err[-1] == "colorcli: error[internal]: a mistake of colorcli, not of yours: ZeroDivisionError: division by zero"
    )


def test_no_more_memory_is_exit_code_6(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down() -> None:
        raise MemoryError

    monkeypatch.setattr("colorcli.presets.shipped_presets", break_down)
    code, _, err = run(capsys, "presets", "list")
    assert code == 6
    assert err[-1].startswith("colorcli: error[device]: out of memory")


@pytest.mark.parametrize(
    ("number", "code", "kind"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_ends_the_run_with_its_own_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int, code: int, kind: str
) -> None:
    def wait() -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr("colorcli.presets.shipped_presets", wait)
    got, _, err = run(capsys, "presets", "list")
    assert got == code
    assert err[-1].startswith(f"colorcli: error[{kind}]: ")


def test_a_reader_that_goes_away_is_no_mistake_of_ours() -> None:
    command = f"{sys.executable} -m colorcli.cli.main presets keys | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == "model: mini\n"
    assert done.stderr == ""


def test_waiting_threads_sleep_unless_the_user_says_otherwise() -> None:
    environment = {"KMP_BLOCKTIME": "200"}
    calm_idle_threads(environment)
    assert environment == {"KMP_BLOCKTIME": "200", "OMP_WAIT_POLICY": "PASSIVE"}


def test_help_takes_less_than_half_a_second() -> None:
    # Processor time: a busy neighbor stretches the clock on the wall, not the work.
    seconds = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-m", "colorcli.cli.main", "--help"], capture_output=True, check=True, cwd=ROOT)
        after = os.times()
        spent_by_user = after.children_user - before.children_user
        seconds.append(spent_by_user + after.children_system - before.children_system)
    assert min(seconds) < 0.5


def test_format_takes_the_words_of_the_preset() -> None:
    allowed = next(key.allowed for key in preset_keys() if key.path == "output.format")
    assert allowed == "one of " + ", ".join(kind.value for kind in Format)


def test_presets_list_names_all_that_are_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "presets")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(shipped_presets())


def test_presets_show_prints_a_file_that_checks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, out, _ = run(capsys, "presets", "show", "soft")
    (tmp_path / "mine.yaml").write_text(out)
    assert run(capsys, "presets", "check", str(tmp_path / "mine.yaml"))[0] == 0


def test_presets_check_lists_every_problem(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("sampling:\n  step: 1\n  steps: -1\n")
    code, out, err = run(capsys, "presets", "check", str(tmp_path / "bad.yaml"))
    assert code == 4
    assert "bad.yaml:2: sampling.step is no setting  (did you mean sampling.steps?)" in out
    assert "bad.yaml:3: sampling.steps is -1" in out
    assert_is_told(err, "preset", "1 of 1 presets cannot be used")


def test_presets_explain_says_where_a_value_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "presets", "explain", "draft", "--set", "sampling.seed=3")
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in out.splitlines()}
    assert rows["sampling.seed"] == ["3", "--set sampling.seed=3"]
    assert rows["canvas.area"][1].startswith("draft.yaml:")
    assert rows["sampling.sampler"] == ["ddim", "default"]


def test_presets_explain_shows_the_settings_of_another_model(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "presets", "explain", "--model", "xl", "--set", "sampling.steps=8")
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in out.splitlines()}
    assert rows["sampling.sampler"] == ["dpm++3m-sde", "model xl"]
    assert rows["reference.guidance"] == ["4", "model xl"]
    assert rows["sampling.steps"] == ["8", "--set sampling.steps=8"]


def test_presets_explain_warns_that_a_model_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "presets", "explain", "--model", "./nowhere")
    assert code == 0
    assert "there is no model folder ./nowhere: settings of its own are not known here" in err[0]
    assert "sampling.steps" in out


def test_presets_check_looks_at_a_preset_through_another_model(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("sampling:\n  start: match\n")
    assert run(capsys, "presets", "check", str(tmp_path / "mine.yaml"))[0] == 0
    code, out, _ = run(capsys, "presets", "check", str(tmp_path / "mine.yaml"), "--model", "xl")
    assert code == 4
    assert "mine.yaml:2: sampling.start is match, but the model xl has no color match (has one: mini)" in out


def test_a_model_that_is_not_there_is_told_before_anything_is_planned(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = run(capsys, str(tmp_path), "--ref", "key.png", "--model", "xll", "--dry-run")
    assert code == 5
    assert_is_told(err, "weights", 'there is no model called "xll"')
