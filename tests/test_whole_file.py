"""A file is there whole or not at all, also where two machines, a long name or a file server get in the way."""

import errno
import os
from pathlib import Path

import pytest

from colorcli.errors import OutputError
from colorcli.whole_file import TEMPORARY, rename_into_place, temporary_beside, whole_file


def write(path: Path, content: bytes) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def test_two_processes_of_one_number_on_two_machines_do_not_meet(tmp_path):
    names = {temporary_beside(tmp_path / "walk.0001.png") for _ in range(1000)}
    assert len(names) == 1000


LONGEST = ["x" * 251 + ".png", "動" * 83 + ".png", "é" * 127]   # 255, 253 and 254 bytes


@pytest.mark.parametrize("name", [*LONGEST, "-o.png", "line\nbreak.png", ".png"])
def test_any_name_that_a_file_can_have_has_a_temporary_one(tmp_path, name):
    path = tmp_path / name
    match = TEMPORARY.fullmatch(temporary_beside(path).name)
    assert match is not None
    assert int(match["pid"]) == os.getpid()
    write(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", [".walk.0001.png", ".DS_Store", "walk.0001.png.77.tmp", ".nfs0000000012345.tmp"])
def test_other_hidden_files_are_no_temporary_ones(name):
    assert TEMPORARY.fullmatch(name) is None


def test_a_rename_whose_answer_was_lost_has_been_done(tmp_path, monkeypatch):
    """A file server renames, the answer is lost, the question is asked again, and there is no such file any more."""
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        real(self, target)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(self))

    monkeypatch.setattr(Path, "replace", replace)
    write(tmp_path / "walk.0001.png", b"whole")
    assert (tmp_path / "walk.0001.png").read_bytes() == b"whole"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_rename_that_was_not_done_is_not_taken_for_done(tmp_path, monkeypatch):
    (tmp_path / "walk.0001.png").write_bytes(b"old")

    def replace(self: Path, target: Path) -> Path:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(self))

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OutputError):
        write(tmp_path / "walk.0001.png", b"new")
    assert (tmp_path / "walk.0001.png").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_temporary_file_that_somebody_took_away_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        rename_into_place(tmp_path / "gone", tmp_path / "there")
