"""No name of a file ever becomes part of a program: no shell, no pickle, no evaluated text, no unsafe YAML."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(file for folder in ("colorcli", "benchmarks", "samples") for file in (ROOT / folder).rglob("*.py"))

# The end of a call's name -> what is wrong with it.
REFUSED = {
    "os.system": "a shell", "os.popen": "a shell", "subprocess.getoutput": "a shell",
    "subprocess.getstatusoutput": "a shell", "create_subprocess_shell": "a shell", "pty.spawn": "a program",
    "eval": "evaluated text", "exec": "evaluated text", "compile": "evaluated text",
    "pickle.load": "a pickle", "pickle.loads": "a pickle", "torch.load": "a pickle", "joblib.load": "a pickle",
    "shelve.open": "a pickle", "dill.load": "a pickle", "pandas.read_pickle": "a pickle",
    "yaml.load": "unsafe YAML", "yaml.unsafe_load": "unsafe YAML", "yaml.full_load": "unsafe YAML",
    "yaml.load_all": "unsafe YAML", "extractall": "an archive that says itself where it goes",
    "tarfile.open": "an archive that says itself where it goes", "unpack_archive": "an archive that says where it goes",
    "tempfile.mktemp": "a name that another process can take", "xml.etree.ElementTree.parse": "XML, with its entities",
}
# Builtins only: re.compile and torch.compile make other things.
BARE = {"eval", "exec", "compile"}


def unsafe_calls(source: str) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) of every call that would run, or believe, what a file or a name says."""
    tree = ast.parse(source)
    origin: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            origin |= {name.asname: name.name for name in node.names if name.asname}
        elif isinstance(node, ast.ImportFrom):
            origin |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        written = ast.unparse(node.func)
        first, dot, rest = written.partition(".")
        called = origin.get(first, first) + dot + rest
        for refused, reason in REFUSED.items():
            if called == refused if refused in BARE else (f".{called}").endswith(f".{refused}"):
                yield node.lineno, f"{called}: {reason}"
        for argument in node.keywords:
            plain_false = isinstance(argument.value, ast.Constant) and argument.value.value is False
            if argument.arg == "shell" and not plain_false:
                yield node.lineno, f"{called}(shell=...): a shell"
            if argument.arg == "allow_pickle" and not plain_false:
                yield node.lineno, f"{called}(allow_pickle=...): a pickle"
            if argument.arg == "trust_remote_code" and not plain_false:
                yield node.lineno, f"{called}(trust_remote_code=...): a program out of a model"
        if called in ("subprocess.run", "subprocess.Popen", "subprocess.call", "subprocess.check_output",
                      "subprocess.check_call") and node.args and _is_text(node.args[0]):
            yield node.lineno, f"{called} with one text: write a list of words"


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


@pytest.mark.parametrize("path", SOURCES, ids=[file.relative_to(ROOT).as_posix() for file in SOURCES])
def test_nothing_in_a_file_or_a_name_is_run(path: Path) -> None:
    assert list(unsafe_calls(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.system('ls')",
        "from os import system\nsystem('ls')",
        "import os as o\no.popen(f'ls {name}')",
        "import subprocess\nsubprocess.run(['ls'], shell=True)",
        "import subprocess as s\ns.Popen(command, shell=is_windows)",
        "import subprocess\nsubprocess.run(f'ls {name}')",
        "from subprocess import getoutput as g\ng('ls')",
        "eval(text)",
        "exec(text)",
        "import pickle\npickle.loads(data)",
        "import torch\ntorch.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "archive.extractall(folder)",
        "import shutil\nshutil.unpack_archive(path)",
        "import asyncio\nasyncio.create_subprocess_shell('ls')",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_each_way_to_do_it_nevertheless_is_found(source: str) -> None:
    assert len(list(unsafe_calls(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import re\nre.compile('a')",
        "import torch\ntorch.compile(network)",
        "import subprocess\nsubprocess.run(['ls', name], check=True)",
        "import subprocess\nsubprocess.run(command, shell=False)",
        "network.eval()",
        "import yaml\nyaml.safe_load(text)\nyaml.compose(text, Loader=PlainLoader)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
    ],
)
def test_what_only_looks_like_it_is_fine(source: str) -> None:
    assert list(unsafe_calls(source)) == []
