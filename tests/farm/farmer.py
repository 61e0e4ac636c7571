"""What tests of farms share: a job made from a command line, its tasks as a farm resolves them, and real runs."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from openjd.model import StepParameterSpaceIterator, create_job, decode_job_template, preprocess_job_parameters

from colorcli.cli.main import main

ROOT = Path(__file__).parents[2]
COLORCLI = f"{sys.executable} -m colorcli"


def environment(**more: str) -> dict[str, str]:
    """The environment of a machine that has this checkout of colorcli."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def make_job(bundle: Path, *words: str | Path) -> Path:
    """Write a job with the stand-in as the engine; raises AssertionError if the command refuses."""
    arguments = ["farm", "openjd", *map(str, words), "-o", str(bundle), "--engine", "stand-in", "--command", COLORCLI]
    assert main(arguments) == 0
    return bundle


def read(bundle: Path, name: str) -> Any:
    """One of a bundle's files."""
    return yaml.safe_load((bundle / name).read_text(encoding="utf-8"))


def job_of(bundle: Path, **values: str) -> Any:
    """The job that the reference library makes of a bundle as Deadline Cloud would, with some other `values`."""
    template = decode_job_template(template=read(bundle, "template.yaml"), supported_extensions=["TASK_CHUNKING"])
    given = {entry["name"]: entry["value"] for entry in read(bundle, "parameter_values.yaml")["parameterValues"]}
    known = {parameter.name for parameter in template.parameterDefinitions}
    parameters = preprocess_job_parameters(
        job_template=template,
        job_parameter_values={name: value for name, value in (given | values).items() if name in known},
        job_template_dir=bundle,
        current_working_dir=bundle,
    )
    return create_job(job_template=template, job_parameter_values=parameters)


def tasks_of(step: Any) -> list[dict[str, str]]:
    """The parameters of every task of a step, as its machines get them; one empty one if it has no space."""
    space = StepParameterSpaceIterator(space=step.parameterSpace)
    return [{name: value.value for name, value in task.items()} for task in space]


def commands(bundle: Path, **values: str) -> Iterator[tuple[str, list[str]]]:
    """(step, words of its command after colorcli) of every task, with all references resolved."""
    job = job_of(bundle, **values)
    scope = {f"Param.{name}": parameter.value for name, parameter in job.parameters.items()}
    for step in job.steps:
        for task in tasks_of(step):
            known = {**scope, **{f"Task.Param.{name}": value for name, value in task.items()}}
            words = [resolved(word, known) for word in step.script.actions.onRun.args]
            yield step.name, words[2:] if words[:2] == ["-m", "colorcli"] else words


def resolved(text: str, scope: Mapping[str, str]) -> str:
    """A format string of the specification, section 7.3, as it is when its references are filled in."""
    return re.sub(r"\{\{\s*([A-Za-z0-9_.]+)\s*\}\}", lambda match: scope[match[1]], str(text))


def openjd(*words: str | Path, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the `openjd` command for real."""
    command = [sys.executable, "-c", "import sys; from openjd.cli import main; sys.exit(main())", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), check=check, timeout=300)


def run_job(bundle: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a bundle on this machine with `openjd run`."""
    return openjd("run", bundle / "template.yaml", "-p", f"file://{bundle / 'run_parameters.yaml'}", *words)


def pictures(out: Path) -> dict[str, bytes]:
    """The colored frames under a folder, by their path in it."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.png"))}


def colorcli(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run colorcli in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "colorcli", *map(str, words)],
        capture_output=True, text=True, env=environment(), check=False, timeout=300,
    )
