"""Imports point one way: read from the source of every module, whether they stand at its top or inside a function."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "colorcli"

# Each part may import those before it, and itself.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("files", "whole_file"),
    ("settings",),
    ("variants",),
    ("presets",),
    ("images",),
    ("prepare",),
    ("model",),
    ("sampling", "pipeline"),
    ("loading",),
    ("finish",),
    ("shot",),
    ("farm",),
    ("review",),
    ("train",),
    ("speed",),
    ("console", "cli"),
    ("__main__",),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}

# The same inside the trainer.
TRAIN_LAYERS = (
    ("sections", "recipe", "turn", "tensor_file", "drawings"), ("data",), ("objectives",), ("stages",), ("run",),
    ("evaluation",),
)
TRAIN_LEVEL = {part: level for level, parts in enumerate(TRAIN_LAYERS) for part in parts}

# Modules that a dry run and `--help` go through: a second of torch there is a second for every task of a farm.
TORCH_FREE = [
    "colorcli",
    "colorcli.errors",
    "colorcli.files",
    "colorcli.whole_file",
    "colorcli.settings",
    "colorcli.presets",
    "colorcli.images",
    "colorcli.prepare.frame",
    "colorcli.prepare.key",
    "colorcli.finish",
    "colorcli.variants",
    "colorcli.model.weights",
    "colorcli.model.hub",
    "colorcli.model.description",
    "colorcli.shot.frames",
    "colorcli.shot.plan",
    "colorcli.shot.manifest",
    "colorcli.shot.run",
    "colorcli.review.reviewed",
    "colorcli.review.page",
    "colorcli.shot.stand_in",
    "colorcli.farm.worker",
    "colorcli.farm.crew",
    "colorcli.farm.ray",
    "colorcli.farm.openjd",
    "colorcli.farm.needs",
    "colorcli.farm.exit_codes",
    "colorcli.train.data.sheet",
    "colorcli.train.data.from_drawings",
    "colorcli.train.data.from_frames",
    "colorcli.console",
    "colorcli.cli.main",
    "colorcli.cli.dry_run",
    "colorcli.cli.render",
]


def module_of(path: Path) -> str:
    """The dotted name of a file: colorcli.shot.plan for colorcli/shot/plan.py."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The part that a module belongs to: colorcli.shot.plan is in shot; colorcli itself in no part."""
    return module.partition(".")[2].partition(".")[0]


def imports_of(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of colorcli in a source, absolute or relative, at its top or not."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] == "colorcli":
                    yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*start, *([node.module] if node.module else [])])
            if origin == "colorcli":  # `from colorcli import console`: each name may be a part
                yield from ((node.lineno, f"colorcli.{name.name}") for name in node.names)
            elif origin.startswith("colorcli."):
                yield node.lineno, origin
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and str(argument.value).startswith("colorcli"):
                    yield node.lineno, str(argument.value)


def upward_imports(source: str, module: str, is_package: bool = False) -> list[str]:
    """Every import of a part that lies above, as "module:line imports other"."""
    part = part_of(module)
    found = []
    for line, other in imports_of(source, module, is_package):
        other_part = part_of(other)
        if other_part in LEVEL and part in LEVEL and LEVEL[other_part] > LEVEL[part]:
            found.append(f"{module}:{line} imports {other}")
        # Parts of one level do not know each other, but the pipeline is made of the sampler and the CLI prints.
        if other_part in LEVEL and part in LEVEL and LEVEL[other_part] == LEVEL[part] and other_part != part:
            allowed = (part, other_part) in {("pipeline", "sampling"), ("cli", "console")}
            found += [] if allowed else [f"{module}:{line} imports {other}"]
    return found


SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=[module_of(path) for path in SOURCES])
def test_a_module_imports_only_parts_before_its_own(path: Path) -> None:
    assert upward_imports(path.read_text(encoding="utf-8"), module_of(path), path.name == "__init__.py") == []


@pytest.mark.parametrize("path", SOURCES, ids=[module_of(path) for path in SOURCES])
def test_every_module_belongs_to_a_known_part(path: Path) -> None:
    assert module_of(path) == "colorcli" or part_of(module_of(path)) in LEVEL


TRAINER = [path for path in SOURCES if "train" in path.relative_to(PACKAGE).parts[:1] and path.parent != PACKAGE]


@pytest.mark.parametrize("path", TRAINER, ids=[module_of(path) for path in TRAINER])
def test_a_module_of_the_trainer_imports_only_parts_before_its_own(path: Path) -> None:
    def level(module: str) -> int:
        name = module.removeprefix("colorcli.train").strip(".").partition(".")[0]
        return TRAIN_LEVEL[name] if name else 0

    module = module_of(path)
    known = imports_of(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
    assert [other for _, other in known if other.startswith("colorcli.train") and level(other) > level(module)] == []


@pytest.mark.parametrize(
    "source",
    [
        "from colorcli.cli.main import main",
        "import colorcli.cli.main",
        "from colorcli import console",
        "from .. import console",
        "from ..train import loop",
        "def lazily():\n    from colorcli.train.run.loop import train",
        "import importlib\nimportlib.import_module('colorcli.train.run.loop')",
    ],
)
def test_an_import_that_points_up_is_found_however_it_is_written(source: str) -> None:
    assert len(upward_imports(source, "colorcli.shot.plan")) == 1


@pytest.mark.parametrize(
    "source", ["from .frames import find_shots", "from ..presets import Preset", "from colorcli import __version__"]
)
def test_an_import_that_points_down_is_fine(source: str) -> None:
    assert upward_imports(source, "colorcli.shot.plan") == []


@pytest.mark.parametrize("module", TORCH_FREE)
def test_planning_never_imports_torch(module: str) -> None:
    assert loaded_by(f"import {module}", "torch", "diffusers", "transformers") == []


def test_help_imports_nothing_large() -> None:
    statement = "from colorcli.cli.main import main; assert main(['--help']) == 0"
    assert loaded_by(statement, "torch", "numpy", "cv2", "pydantic", "yaml", "OpenImageIO", "rich") == []


def loaded_by(statement: str, *libraries: str) -> list[str]:
    """Those of the libraries that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint('loaded:', *[name for name in {libraries!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    return done.stdout.rpartition("loaded:")[2].split()
