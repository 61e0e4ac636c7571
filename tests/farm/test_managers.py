"""The submissions of docs/farm.md, each through the substitutions of its manager, and then run for real."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fileseq
import pytest

from colorcli import errors
from colorcli.cli.main import EXIT_INTERRUPTED, EXIT_TERMINATED, main
from colorcli.farm.exit_codes import EXIT_CODES
from tests.farm.farmer import ROOT, environment, pictures
from tests.shot.studio import draw, draw_key, draw_shot

PAGE = (ROOT / "docs" / "farm.md").read_text(encoding="utf-8")
FRAMES = range(1, 13)
NAMES = [f"walk.{number:04d}.png" for number in FRAMES]


def blocks(heading: str) -> list[str]:
    """The fenced blocks of the page under a heading."""
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(heading + "\n")]
    return re.findall(r"^```\w+\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def show(tmp_path: Path) -> Path:
    """The show of the page, and a `colorcli` in the path that uses the stand-in."""
    demo = tmp_path / "demo"
    draw_shot(demo / "line art" / "c003", tuple(FRAMES))
    draw_key(demo / "keys" / "hero.png")
    command = tmp_path / "bin" / "colorcli"
    command.parent.mkdir()
    engine = 'case "$1" in farm) ;; *) set -- "$@" --engine stand-in ;; esac'
    command.write_text(f'#!/bin/sh\n{engine}\nexec {shlex.quote(sys.executable)} -m colorcli "$@"\n')
    command.chmod(0o755)
    return demo


def moved(text: str, show: Path) -> str:
    """A submission with the show of the page where the test has it."""
    return text.replace("/shows/demo", str(show))


def run(words: Sequence[str], show: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a machine of the farm does."""
    path = f"{show.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        words, capture_output=True, text=True, env=environment(PATH=path, **more), check=False, timeout=300
    )


def run_all(commands: Sequence[Sequence[str]], show: Path) -> str:
    """Run the tasks of a job in order; all must end well, and the colors be there. Gives what they printed."""
    printed = ""
    for words in commands:
        done = run(words, show)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        printed += done.stdout
    assert sorted(pictures(show / "color" / "c003")) == NAMES
    assert "12 of 12 frames are there, 0 failed, 0 missing" in printed
    return printed


def deadline_tasks(submission: str) -> list[list[str]]:
    """What Deadline 10 runs for a `deadlinecommand -SubmitCommandLineJob ...` line.

    Manual, "Arbitrary Command Line Jobs": tasks of `-chunksize` frames, key words replaced in `-arguments`, whose words
    then end at spaces outside double quotes.
    """
    words = shlex.split(submission.replace("\\\n", " "))
    assert words[:2] == ["deadlinecommand", "-SubmitCommandLineJob"]
    options = {words[at]: words[at + 1] for at in range(2, len(words), 2)}
    frames, size = list(fileseq.FrameSet(options["-frames"])), int(options["-chunksize"])
    tasks = []
    for at in range(0, len(frames), size):
        chunk = frames[at : at + size]
        text = options["-arguments"]
        for name, number in (("STARTFRAME", chunk[0]), ("ENDFRAME", chunk[-1])):
            text = re.sub(f"<{name}%(\\d+)>", lambda match, number=number: str(number).zfill(int(match[1])), text)
            text = text.replace(f"<{name}>", str(number))
        text = text.replace("<QUOTE>", '"')
        assert "<" not in text, f"Deadline knows no {text}"
        arguments = [word.replace('"', "") for word in re.findall(r'(?:"[^"]*"|\S)+', text)]
        tasks.append([options["-executable"], *arguments])
    return tasks


def test_deadline_10(show: Path) -> None:
    color, finish = (deadline_tasks(moved(block, show)) for block in blocks("Thinkbox Deadline 10"))
    assert [task[task.index("--frames") + 1] for task in color] == ["1-8", "9-12"]
    printed = run_all([*color, *finish], show)
    # The stock plug-in looks for this anywhere in a line.
    assert re.findall(r"Progress: (\d+)%", printed)[-5:] == ["100", "25", "50", "75", "100"]


class Layer:
    """As much of a PyOutline layer as a submission touches."""

    def __init__(self, name: str, **arguments: Any) -> None:
        self.name, self.arguments, self.after = name, arguments, []

    def depend_all(self, other: "Layer") -> None:
        self.after.append(other)


def cuebot_commands(layer: Layer) -> list[list[str]]:
    """What OpenCue runs for a layer: cuebot replaces tokens in the command as text, and a shell of RQD reads it.

    DispatchSupportService; `outline.backend.cue` gives the command on as it is if it is a string.
    """
    command = layer.arguments["command"]
    assert isinstance(command, str)
    frames, size = list(fileseq.FrameSet(layer.arguments["range"])), layer.arguments.get("chunk", 1)
    found = []
    for at in range(0, len(frames), size):
        chunk = frames[at : at + size]
        spec = ",".join(map(str, chunk)) if len(chunk) < 3 else f"{chunk[0]}-{chunk[-1]}"
        text = command
        for token, value in {
            "#ZFRAME#": f"{chunk[0]:04d}", "#IFRAME#": str(chunk[0]), "#FRAME_START#": str(chunk[0]),
            "#FRAME_END#": str(chunk[0] + size - 1), "#FRAME_CHUNK#": str(size), "#LAYER#": layer.name, "#JOB#": "job",
            "#FRAMESPEC#": spec, "#FRAME#": f"{chunk[0]:04d}-{layer.name}",
        }.items():  # fmt: skip
            text = text.replace(token, value)
        found.append(["bash", "-c", text])
    return found


def test_opencue(show: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[tuple[list[Layer], dict[str, Any]]] = []
    layers: list[Layer] = []
    job = types.SimpleNamespace(add_layer=layers.append)
    outline = types.ModuleType("outline")
    cuerun, modules, shell = (types.ModuleType(f"outline.{name}") for name in ("cuerun", "modules", "modules.shell"))
    outline.Outline = lambda name, **_: job            # type: ignore[attr-defined]
    outline.cuerun = cuerun                            # type: ignore[attr-defined]
    cuerun.launch = lambda ol, **how: launched.append((layers, how))  # type: ignore[attr-defined]
    shell.Shell = Layer                                # type: ignore[attr-defined]
    for module in (outline, cuerun, modules, shell):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    (block,) = blocks("OpenCue")
    exec(compile(moved(block, show), "docs/farm.md", "exec"), {})
    assert launched == [(layers, {"use_pycuerun": False})]   # else OpenCue wraps the command in a program of its own
    color, finish = layers
    assert finish.after == [color]
    run_all([*cuebot_commands(color), *cuebot_commands(finish)], show)


class TractorNode:
    """As much of a job, a task or a command of Tractor's author API as a submission touches."""

    def __init__(self, **attributes: Any) -> None:
        self.attributes, self.tasks, self.commands, self.spooled = attributes, [], [], 0

    def newTask(self, **attributes: Any) -> "TractorNode":
        self.tasks.append(TractorNode(**attributes))
        return self.tasks[-1]

    def addCommand(self, command: "TractorNode") -> None:
        self.commands.append(command)

    def spool(self) -> None:
        self.spooled += 1

    def in_order(self) -> list["TractorNode"]:
        """The commands as they run: those of the tasks inside first."""
        return [command for task in self.tasks for command in task.in_order()] + self.commands


def tractor_substituted(word: str) -> str:
    """A word as Tractor launches it: %% is a percent sign, %h and the like are names of hosts."""
    return re.sub(r"%(.)", lambda match: {"%": "%", "h": "blade7", "H": "blade7", "n": "1"}[match[1]], word)


def test_tractor(show: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[TractorNode] = []
    author = types.ModuleType("tractor.api.author")
    author.Command = TractorNode                                                       # type: ignore[attr-defined]
    author.Job = lambda **attributes: jobs.append(TractorNode(**attributes)) or jobs[-1]   # type: ignore[attr-defined]
    tractor, api = types.ModuleType("tractor"), types.ModuleType("tractor.api")
    api.author = author                                                                # type: ignore[attr-defined]
    for module in (tractor, api, author):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    (block,) = blocks("Tractor")
    # A percent sign in a name, as in walk.%04d.png, is where a submission to Tractor goes wrong.
    percent = show.rename(show.with_name("50%h demo"))
    exec(compile(moved(block, percent), "docs/farm.md", "exec"), {})
    (job,) = jobs
    assert job.spooled == 1
    commands = job.in_order()
    retried = [one.code for one in EXIT_CODES if one.again == "elsewhere" and one.code < 128]
    assert {tuple(command.attributes["retryrc"]) for command in commands} == {tuple(retried)}
    printed = run_all([[tractor_substituted(word) for word in one.attributes["argv"]] for one in commands], percent)
    assert re.findall(r"^TR_PROGRESS (\d{3})%$", printed, re.MULTILINE)[-4:] == ["025", "050", "075", "100"]


@pytest.fixture
def sbatch(show: Path) -> Path:
    """The batch script of the page, and a `scontrol` that writes down what it is asked for."""
    (block,) = blocks("Slurm")
    script = show.parent / "color.sbatch"
    script.write_text(moved(block, show))
    scontrol = show.parent / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {shlex.quote(str(show.parent / "asked"))}\n')
    scontrol.chmod(0o755)
    return script


def slurm_task(script: Path, show: Path, number: int, restarts: int = 0) -> subprocess.Popen[str]:
    """Start one task of the array as Slurm does, which knows the array by the `#SBATCH` line."""
    path = f"{show.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    variables = {"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": str(number), "SLURM_RESTART_COUNT": str(restarts)}
    return subprocess.Popen(
        ["bash", str(script)], env=environment(PATH=path, **variables), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_slurm(show: Path, sbatch: Path) -> None:
    (array,) = re.findall(r"^#SBATCH --array=(\S+)$", sbatch.read_text(), re.MULTILINE)
    for number in fileseq.FrameSet(array):
        task = slurm_task(sbatch, show, number)
        assert task.wait(timeout=300) == 0, task.communicate()
    assert not (show.parent / "asked").exists()
    (wrapped,) = re.findall(r'--wrap "(.*)"', PAGE)
    run_all([["sh", "-c", moved(wrapped, show)]], show)


def test_slurm_gets_a_preempted_task_back_and_it_goes_on(show: Path, sbatch: Path) -> None:
    shot, out = show / "line art" / "c003", show / "color" / "c003"
    for number in range(1, 41):
        draw(shot / f"walk.{number:04d}.png", number, (480, 320))   # large enough for the signal to come in between
    task = slurm_task(sbatch, show, 1)
    until = time.monotonic() + 120
    while not list(out.glob("*.png")):
        assert task.poll() is None and time.monotonic() < until, task.communicate()
        time.sleep(0.01)
    task.send_signal(signal.SIGTERM)   # `--signal=B:TERM@60` is for the script alone
    assert task.wait(timeout=120) == 143, task.communicate()
    assert (show.parent / "asked").read_text() == "requeue 77_1\n"
    done = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert 0 < len(done) < 20
    again = slurm_task(sbatch, show, 1, restarts=1)
    assert again.wait(timeout=120) == 0, again.communicate()
    assert len(pictures(out)) == 20
    assert {name: (out / name).stat().st_mtime_ns for name in done} == done


def test_slurm_is_not_asked_for_another_try_where_none_helps(show: Path, sbatch: Path) -> None:
    (show / "keys" / "hero.png").unlink()
    task = slurm_task(sbatch, show, 1)
    assert task.wait(timeout=120) == 3
    assert not (show.parent / "asked").exists()


def test_slurm_does_not_try_for_ever(show: Path, sbatch: Path) -> None:
    (show / "color").write_text("in the way of the folder")
    for restarts, asked in ((2, 1), (3, 1)):
        task = slurm_task(sbatch, show, 1, restarts)
        assert task.wait(timeout=120) == 9, task.communicate()
        assert len((show.parent / "asked").read_text().splitlines()) == asked


def test_the_page_lists_the_exit_codes_of_the_program() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*?) \| (\w+) \|$", PAGE, re.MULTILINE)
    assert rows == [(str(one.code), one.means, one.again) for one in EXIT_CODES]


def test_the_program_lists_them_for_scripts_and_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["farm", "codes", "--json"]) == 0
    listed = {one["code"]: one["again"] for one in json.loads(capsys.readouterr().out)}
    assert (listed[0], listed[4], listed[6], listed[143]) == ("done", "no", "elsewhere", "here")
    assert main(["farm", "codes"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].split() == ["code", "again", "means"]
    assert [int(row.split()[0]) for row in rows[1:]] == sorted(listed)


def test_every_way_to_fail_has_a_row() -> None:
    def classes(base: type) -> set[type]:
        return {base}.union(*map(classes, base.__subclasses__()))

    codes = {one.exit_code for one in classes(errors.ColorcliError)} | {0, EXIT_INTERRUPTED, EXIT_TERMINATED}
    assert codes <= {one.code for one in EXIT_CODES}
    assert len({one.code for one in EXIT_CODES}) == len(EXIT_CODES)
