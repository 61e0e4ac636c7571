"""A job for a farm that speaks Open Job Description (2023-09), written as a bundle: a folder with some small files.

    template.yaml            the steps: check, color in chunks of frames, merge the records and verify the files
    parameter_values.yaml    where the shot, the key and the results are; `deadline bundle submit` reads it
    asset_references.yaml    which files go in and come out, for farms without shared storage
    run_parameters.yaml      the same values for `openjd run template.yaml -p file://run_parameters.yaml`
    preset.yaml              the settings as they were when the job was made; preset2.yaml, if some shots have others

A task is the bare command with `--shot` and `--frames`. What was typed and the names of shots reach it as single
arguments: nothing of this goes through a shell, and no name is read as a part of the template.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

import yaml

from colorcli.errors import MissingExtraError, OutputError, UsageError
from colorcli.farm.needs import Needs
from colorcli.presets import Preset, default_preset, files_of, with_files
from colorcli.shot.frames import OPENJD_FRAMES, numbers_as_range
from colorcli.shot.key_files import SHOT_FIELD
from colorcli.shot.manifest import output_error, write_atomically
from colorcli.shot.plan import ShotPlan, ShotRequest, plan_requests, plan_shots
from colorcli.variants import VARIANTS

SPECIFICATION = "jobtemplate-2023-09"
TEMPLATE, VALUES, ASSETS = "template.yaml", "parameter_values.yaml", "asset_references.yaml"
RUN_VALUES = "run_parameters.yaml"
CHECK, COLOR, FINISH = "check", "color", "merge and verify"
PROGRESS = ("--progress", "openjd")

# Limits of the specification.
LONGEST_VALUE = 1024      # characters of a parameter's value
LONGEST_JOB_NAME = 128
LONGEST_STEP_NAME = 64
MOST_PARAMETERS = 50
MOST_PLACES = 10          # that have parameters of their own; more share the folder that they are all in
NOTIFY_SECONDS = 120      # between SIGTERM and SIGKILL: the frames that are in work are finished or dropped cleanly

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# Parameters of the farm itself, for `deadline bundle submit`.
FARM_PARAMETER = re.compile(r"[A-Za-z]+:[A-Za-z_]+")
BRACES = {"{{": "OpenBraces", "}}": "CloseBraces"}   # parameters that stand for them in a name

Flow = Literal["IN", "OUT", "NONE"]
Template = dict[str, Any]
Settings = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """What one kind of shots is colored with."""

    request: ShotRequest             # as for the bare command
    family: str = "mini"             # which of `VARIANTS` its model is; any other word: none of them
    model_path: Path | None = None   # of a model that is a folder or a file, not a name
    needs: Needs = field(default_factory=Needs)   # of a machine that colors, beside what the frames take


@dataclass(frozen=True)
class FarmJob:
    """What a bundle is made of."""

    works: tuple[Work, ...]
    options: tuple[str, ...] = ()              # further words of the bare command that every task gets: --device, cpu
    engine_folder: Path | None = None          # of `--engine FOLDER`
    typed_needs: tuple[str, ...] = ()          # what a machine must have instead: memory=16384
    frames_per_task: int = 24
    seconds_per_task: int = 0                  # that a farm may aim for instead; 0: it takes the frames as they are
    command: tuple[str, ...] = ("colorcli",)   # how colorcli is called on the machines
    name: str | None = None                    # None: after the shots
    parameters: Mapping[str, str] = field(default_factory=dict)  # further ones: CondaPackages, deadline:priority


@dataclass(frozen=True)
class Bundle:
    """The files of a job, as plain values."""

    template: Template
    values: Mapping[str, str]                # of the template's parameters that have no default
    farm_values: Mapping[str, str | int]     # of parameters of the farm itself
    input_files: tuple[str, ...]             # absolute
    input_folders: tuple[str, ...]
    output_folders: tuple[str, ...]
    presets: Mapping[str, tuple[Settings, str]]   # file name -> what is not as the model has it, and the preset typed

    @property
    def parameter_values(self) -> Template:
        """What parameter_values.yaml holds."""
        every = {**self.values, **self.farm_values}
        return {"parameterValues": [{"name": name, "value": value} for name, value in every.items()]}

    @property
    def asset_references(self) -> Template:
        """What asset_references.yaml holds."""
        return {
            "assetReferences": {
                "inputs": {"directories": list(self.input_folders), "filenames": list(self.input_files)},
                "outputs": {"directories": list(self.output_folders)},
                "referencedPaths": [],
            }
        }


@dataclass(frozen=True)
class Place:
    """One SHOT argument: a folder, a tree, a pattern or a picture."""

    text: str                      # as typed
    work: Work
    out: Path                      # where a run with this argument alone writes, absolute
    plans: tuple[ShotPlan, ...]
    is_tree: bool                  # a task has to name its shot: there are more, or it lies deeper


def make_bundle(job: FarmJob) -> Bundle:
    """Plan the shots and describe the work.

    Raises what `plan_requests` raises, and UsageError for what no job description can hold: line breaks in a path,
    paths of more than 1024 characters, too many places.
    """
    return _Writer(job).bundle(_places(job.works))


def check_bundle(bundle: Bundle, folder: Path) -> None:
    """Let the reference library of Open Job Description read the template with its values, as a farm does.

    folder: where the bundle is, absolute. Raises MissingExtraError where the library is not installed; that it refuses
    a template is a mistake of ours.
    """
    try:
        from openjd.model import create_job, decode_job_template, preprocess_job_parameters
    except ImportError as error:
        raise MissingExtraError(
            "a job bundle is checked with openjd-model, which is not installed", hint="pip install 'colorcli[farm]'"
        ) from error
    template = decode_job_template(template=bundle.template, supported_extensions=["TASK_CHUNKING"])
    values = preprocess_job_parameters(
        job_template=template,
        job_parameter_values=dict(bundle.values),
        job_template_dir=folder,
        current_working_dir=folder,
    )
    create_job(job_template=template, job_parameter_values=values)


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Write the files of a job into a folder, each whole. Raises UsageError if something else lies there, OutputError.

    The template comes last: a folder that has one holds the rest too.
    """
    real = folder.resolve()
    for shot in map(Path, bundle.input_folders):
        if real.is_relative_to(shot.resolve()):
            raise UsageError(f"the bundle {folder} lies in {shot}, which goes into the job",
                             hint="name a folder beside it with -o")
    try:
        if folder.is_dir() and not (folder / TEMPLATE).is_file() and any(folder.iterdir()):
            raise UsageError(f"{folder} holds something else than a job bundle", hint="name a new folder with -o")
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OutputError(f"{folder} is a file, not a folder", hint="name another folder with -o") from None
    except OSError as error:
        raise output_error(folder, error) from error
    for name, (settings, preset) in bundle.presets.items():
        about = f"# The settings as they were when the job was made, from the preset {one_line(preset)}.\n"
        write_atomically(folder / name, (about + _yaml(settings)).encode())
    write_atomically(folder / ASSETS, _yaml(bundle.asset_references).encode())
    write_atomically(folder / RUN_VALUES, _yaml(dict(bundle.values)).encode())
    write_atomically(folder / VALUES, _yaml(bundle.parameter_values).encode())
    write_atomically(folder / TEMPLATE, _yaml(bundle.template).encode())


def openjd_range(numbers: Iterable[int]) -> str:
    """Frame numbers as Open Job Description writes them: [1, 3, 5, 9] is "1-5:2,9"."""
    return numbers_as_range(list(numbers)).replace("x", ":")


def one_line(text: str) -> str:
    """A text without line breaks and other control characters."""
    return " ".join(CONTROL.sub(" ", text).split())


def _places(works: Sequence[Work]) -> list[Place]:
    """Plan each SHOT argument as its tasks will: alone. Raises what `plan_requests` raises for all of them together."""
    requests = [work.request for work in works]
    together = plan_requests(requests)
    places = []
    for work in works:
        texts = list(dict.fromkeys(work.request.shots))
        for text in texts:
            root = Path(text) if Path(text).is_dir() else Path(text).parent
            plans = together
            if len(texts) > 1 or len(works) > 1:
                out = work.request.out
                if len(texts) > 1 and out is not None:
                    out = out / root.resolve().name
                plans = plan_shots(replace(work.request, shots=(text,), out=out))
            inside = Path(os.path.relpath(plans[0].folder, root))
            base = plans[0].out.parents[len(inside.parts) - 1] if inside.parts else plans[0].out
            is_tree = len(plans) > 1 or bool(inside.parts or work.request.only)
            places.append(Place(text, work, _absolute(base), tuple(plans), is_tree))
    return places


class _Writer:
    """Describes one job; parameters are collected while the steps are."""

    def __init__(self, job: FarmJob) -> None:
        self._job = job
        self._definitions: dict[str, Template] = {}
        self._values: dict[str, str] = {}
        self._named: dict[tuple[str, str, Flow], str] = {}   # value, kind and flow of a path -> its parameter
        self._presets: dict[str, tuple[Settings, str]] = {}
        self._files: dict[str, None] = {}
        self._folders: dict[str, None] = {}
        self._outs: dict[str, None] = {}
        # Folders that stand for what lies in them, where a parameter for each would be too many.
        self._above: dict[Flow, Path] = {}

    def bundle(self, places: Sequence[Place]) -> Bundle:
        """Describe the whole job."""
        if len(places) > MOST_PLACES:
            self._above = {
                "IN": _common_folder([_absolute(Path(place.text)) for place in places]),
                "OUT": _common_folder([place.out for place in places]),
            }
        one_step = sum(len(place.plans) for place in places) == 1
        steps: list[Template] = []
        colored: list[str] = []
        outs: list[str] = []
        for number, place in enumerate(places, 1):
            request, needs = place.work.request, self._needs(place)
            words = [self._shot(place), *self._shared(place)]
            outs.append(self._placed("Out", place.out, "OUT", "where the colors go"))
            words += ["-o", outs[-1]]
            check = CHECK if len(places) == 1 else f"{CHECK} {number}"
            asked = [] if request.frames is None else [f"--frames={self._literal(request.frames)}"]
            only = [f"--shot={self._literal(name)}" for name in request.only]
            steps.append(self._step(check, [*words, *only, *asked, "--dry-run"], needs=needs))
            for plan in place.plans:
                if not plan.jobs:
                    continue   # the shot has no frame of those that were asked for
                name = self._step_name(plan, {step["name"] for step in steps})
                colored.append(name)
                one = [f"--shot={self._literal(plan.name)}"] if place.is_tree else []
                part, space = self._tasks(plan, one_step)
                steps.append(self._step(name, [*words, *one, part, *PROGRESS], [check], needs, space))
        # Of one shot it is known which frames have to be there, also if they were changed when the job was sent.
        wanted = [f"--frames={OPENJD_FRAMES}" + "{{Param.Frames}}"] if "Frames" in self._definitions else []
        steps.append(self._step(FINISH, ["farm", "finish", *outs, *wanted], colored))
        farm_values = self._further_parameters()
        drawings = sum(len(plan.jobs) for place in places for plan in place.plans)
        template: Template = {
            "specificationVersion": SPECIFICATION,
            "extensions": ["TASK_CHUNKING"],
            "name": self._literal(self._name(places)),
            "description": f"colorcli colors {drawings} {'drawing' if drawings == 1 else 'drawings'}.",
            "parameterDefinitions": list(self._definitions.values()),
            "steps": steps,
        }
        if len(self._definitions) > MOST_PARAMETERS:
            raise UsageError(
                f"the job would have {len(self._definitions)} parameters, and a job has {MOST_PARAMETERS} at most",
                hint="its shots have too many keys, masks or presets of their own: write several bundles",
            )
        return Bundle(
            template=template,
            values=self._values,
            farm_values=farm_values,
            input_files=tuple(self._files),
            input_folders=tuple(self._folders),
            output_folders=tuple(self._outs),
            presets=self._presets,
        )

    def _name(self, places: Sequence[Place]) -> str:
        shots = ", ".join(Path(place.text).resolve().name for place in places)
        return one_line(self._job.name or f"colorcli {shots}")[:LONGEST_JOB_NAME] or "colorcli"

    def _needs(self, place: Place) -> Needs:
        """What a machine must have for the largest frame of a place."""
        sizes = [job.size for plan in place.plans for job in plan.jobs if job.size is not None]
        largest = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
        return place.work.needs.for_frames(largest).changed(self._job.typed_needs)

    def _shot(self, place: Place) -> str:
        """The SHOT argument of the tasks."""
        path = Path(place.text)
        if path.is_dir():
            return self._placed("Shot", path, "IN", "the drawings")
        for plan in place.plans:
            jobs = [*plan.jobs, *(job for sequence in plan.sequences for job in sequence)]
            self._files |= dict.fromkeys(str(_absolute(job.source)) for job in jobs)
        folder = self._path("Shot", path.parent, "DIRECTORY", "NONE", "the folder of the drawings")
        return f"{folder}/{self._literal(path.name)}"

    def _shared(self, place: Place) -> list[str]:
        """The words that are the same for every shot of a place."""
        request, job = place.work.request, self._job
        words: list[str] = []
        for ref in request.refs:
            words += ["--ref", self._file("Key", ref, "the key", [key for plan in place.plans for key in plan.keys])]
        for masks in request.masks:
            words += ["--masks", self._path("Masks", masks, "DIRECTORY", "IN", "masks of a character")]
        words += ["--preset", self._preset(place.work)]
        of_shots = {
            "background.image": [plan.background for plan in place.plans],
            "finish.palette_file": [plan.palette_file for plan in place.plans],
        }
        for key, file in files_of(request.preset).items():
            stem = "".join(part.capitalize() for part in re.split(r"[._]", key))
            found = [path for path in of_shots.get(key, []) if path is not None]
            words += ["--set-file", f"{key}={self._file(stem, file, key, found)}"]
        if place.work.model_path is not None:
            words += ["--model", self._file("Model", str(place.work.model_path), "the model", [])]
        if job.engine_folder is not None:
            words += ["--engine", self._path("Engine", job.engine_folder, "DIRECTORY", "IN", "the exported networks")]
        words += ["--overwrite"] if request.overwrite else []
        words += ["--thorough"] if request.thorough else []
        return [*words, *map(self._literal, job.options)]

    def _tasks(self, plan: ShotPlan, one_step: bool) -> tuple[str, Template]:
        """The word that tells a task its frames, and the space of all tasks.

        Pictures without a number cannot be asked for by one: such a shot is parted by count.
        """
        numbers = [job.number for job in plan.jobs]
        if None in numbers:
            parts = -(-len(numbers) // self._job.frames_per_task)
            asked = {"name": "Part", "type": "INT", "range": f"1-{parts}"}
            return "--chunk={{Task.Param.Part}}/" + str(parts), {"taskParameterDefinitions": [asked]}
        frames = openjd_range(number for number in numbers if number is not None)
        if one_step and len(frames) <= LONGEST_VALUE:
            frames = self._with_default("Frames", "STRING", frames, "the frames, as in 1-100 or 1-100:2,120")
        chunks: Template = {
            "defaultTaskCount": self._with_default(
                "FramesPerTask", "INT", self._job.frames_per_task, "frames that a machine colors in one go", minValue=1
            ),
            "targetRuntimeSeconds": self._with_default(
                "SecondsPerTask", "INT", self._job.seconds_per_task,
                "how long a task should take, if the farm chooses the count of frames; 0: it does not", minValue=0,
            ),
            "rangeConstraint": "NONCONTIGUOUS",
        }
        frame: Template = {"name": "Frame", "type": "CHUNK[INT]", "range": frames, "chunks": chunks}
        return f"--frames={OPENJD_FRAMES}" + "{{Task.Param.Frame}}", {"taskParameterDefinitions": [frame]}

    def _step(
        self, name: str, words: Sequence[str], after: Sequence[str] = (), needs: Needs | None = None,
        space: Template | None = None,
    ) -> Template:
        command, *first = map(self._literal, self._job.command)
        step: Template = {"name": name}
        if after:
            step["dependencies"] = [{"dependsOn": other} for other in after]
        if needs is not None and needs.amounts():
            amounts = [{"name": f"amount.worker.{word}", "min": value} for word, value in needs.amounts().items()]
            step["hostRequirements"] = {"amounts": amounts}
        if space is not None:
            step["parameterSpace"] = space
        cancel = {"mode": "NOTIFY_THEN_TERMINATE", "notifyPeriodInSeconds": NOTIFY_SECONDS}
        run = {"command": command, "args": [*first, *words], "cancelation": cancel}
        return {**step, "script": {"actions": {"onRun": run}}}

    def _step_name(self, plan: ShotPlan, taken: set[str]) -> str:
        name = f"{COLOR} {one_line(plan.name)}"
        number = 1
        while len(name) > LONGEST_STEP_NAME or name in taken:
            number += 1
            end = f" {number}"
            name = f"{COLOR} {one_line(plan.name)}"[: LONGEST_STEP_NAME - len(end)] + end
        return name

    def _file(self, stem: str, text: str, description: str, files: Sequence[Path]) -> str:
        """A reference to a file, a folder, or a pattern with {shot} that means these files."""
        if SHOT_FIELD not in text:
            path = Path(text)
            return self._path(stem, path, "DIRECTORY" if path.is_dir() else "FILE", "IN", description)
        before, _, _ = text.partition(SHOT_FIELD)
        folder = Path(f"{before}x").parent   # of "keys/hero_{shot}.png" it is keys
        self._files |= dict.fromkeys(str(_absolute(file)) for file in files)
        there = self._path(f"{stem}Folder", folder, "DIRECTORY", "NONE", f"the folder of {description}")
        return f"{there}/{self._literal(Path(text).relative_to(folder).as_posix())}"

    def _placed(self, stem: str, path: Path, flow: Flow, description: str) -> str:
        """A reference to a folder with a parameter of its own, or to one in a folder that has one for many."""
        above = self._above.get(flow)
        if above is None:
            return self._path(stem, path, "DIRECTORY", flow, description)
        value = str(_absolute(path))
        _require_text(value)
        (self._outs if flow == "OUT" else self._folders)[value] = None
        there = self._path(f"{stem}s", above, "DIRECTORY", "NONE", f"the folder of {description}")
        inside = Path(value).relative_to(above).as_posix()
        return there if inside == "." else f"{there}/{self._literal(inside)}"

    def _path(self, stem: str, path: Path, kind: str, flow: Flow, description: str) -> str:
        """A reference to a parameter for a file or folder; the same one for the same path."""
        value = str(_absolute(path))
        name = self._named.get((value, kind, flow))
        if name is None:
            _require_text(value)
            known = {"IN": self._folders if kind == "DIRECTORY" else self._files, "OUT": self._outs}
            known.get(flow, {})[value] = None
            name = _free_name(stem, self._definitions)
            self._named[value, kind, flow] = name
            self._values[name] = value
            self._definitions[name] = {
                "name": name, "type": "PATH", "objectType": kind, "dataFlow": flow, "description": description,
            }
        return f"{{{{Param.{name}}}}}"

    def _preset(self, work: Work) -> str:
        """A reference to a file of settings in the bundle, which moves with it."""
        preset, name = work.request.preset, work.request.preset_name
        places = [f"{key}={_absolute(Path(file))}" for key, file in files_of(preset).items()]
        usual = default_preset(work.family) if work.family in VARIANTS else Preset()
        settings = _differing(with_files(preset, places), usual)
        file = next((file for file, (known, _) in self._presets.items() if known == settings), None)
        if file is None:
            number = len(self._presets) + 1
            file = f"preset{number if number > 1 else ''}.yaml"
            self._presets[file] = (settings, name)
        parameter = file.removesuffix(".yaml").capitalize()
        self._definitions[parameter] = {
            "name": parameter, "type": "PATH", "objectType": "FILE", "dataFlow": "IN", "default": file,
            "description": "the settings",
        }
        return f"{{{{Param.{parameter}}}}}"

    def _with_default(self, name: str, kind: str, value: str | int, description: str, **more: Any) -> str:
        """A reference to a parameter that people may change when they submit the job."""
        self._definitions[name] = {"name": name, "type": kind, "default": value, "description": description, **more}
        return f"{{{{Param.{name}}}}}"

    def _literal(self, text: str) -> str:
        """A text that reaches the task as it is: double braces in it would be read as references."""
        _require_text(text)
        for braces, name in BRACES.items():
            if braces in text:
                self._definitions[name] = {
                    "name": name, "type": "STRING", "default": braces, "allowedValues": [braces],
                    "description": "stands for two braces in a name", "userInterface": {"control": "HIDDEN"},
                }
        return re.sub(r"{{|}}", lambda match: f"{{{{Param.{BRACES[match[0]]}}}}}", text)

    def _further_parameters(self) -> dict[str, str | int]:
        """Define the parameters that were asked for; those of the farm itself are given back."""
        of_farm: dict[str, str | int] = {}
        for name, value in self._job.parameters.items():
            if FARM_PARAMETER.fullmatch(name):
                # Deadline Cloud wants deadline:priority as a number.
                of_farm[name] = int(value) if re.fullmatch(r"-?[0-9]{1,9}", value) else value
                continue
            if not IDENTIFIER.fullmatch(name) or name in self._definitions:
                problem = "is one of colorcli's own" if name in self._definitions else "is no name for a parameter"
                hint = "letters, digits and _, as in CondaPackages=colorcli"
                raise UsageError(f"--parameter {name} {problem}", hint=hint)
            _require_text(value)
            self._definitions[name] = {"name": name, "type": "STRING", "default": value}
        return of_farm


def _differing(preset: Preset, usual: Preset) -> dict[str, Any]:
    """The settings of a preset that are not the usual ones, as its file holds them; the model always."""
    ours, theirs = preset.model_dump(mode="json"), usual.model_dump(mode="json")
    found: dict[str, Any] = {"model": preset.model}
    for name, value in ours.items():
        if isinstance(value, dict):
            found |= {name: {key: one for key, one in value.items() if one != theirs[name][key]}}
        elif value != theirs[name]:
            found[name] = value
    return {name: value for name, value in found.items() if value != {}}


def _free_name(stem: str, taken: Mapping[str, Any]) -> str:
    """Shot, Shot2, Shot3 ..."""
    return next(name for name in chain([stem], (f"{stem}{number}" for number in count(2))) if name not in taken)


def _common_folder(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([_absolute(path) for path in paths]))


def _require_text(text: str) -> None:
    """Raise UsageError for a text that no job description holds."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{text!a} is not UTF-8, and a job description is", hint="rename it") from None
    if CONTROL.search(text):
        raise UsageError(f"{text!a} holds a line break or another control character", hint="rename it")
    if len(text) > LONGEST_VALUE:
        raise UsageError(
            f"{text[:60]}... has {len(text)} characters, and a job description holds {LONGEST_VALUE}",
            hint="rename it, or link to it from a shorter path",
        )


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 (a link stays as it was typed)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
