"""What a machine tells of its memory."""

from pathlib import Path

import pytest

from colorcli.model import machine

GIGABYTE = 10**9


def test_files_kept_at_hand_count_as_free_memory_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a model just copied would leave no memory to load it into."""
    (tmp_path / "memory.max").write_text(f"{GIGABYTE}\n")
    (tmp_path / "memory.current").write_text(f"{GIGABYTE - 1000}\n")
    (tmp_path / "memory.stat").write_text("anon 5\nactive_file 200\ninactive_file 3000\nshmem 7\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    if machine.memory_bytes()[1] is None:
        pytest.skip("this system does not tell its memory")
    assert machine.memory_bytes() == (1000 + 3200, GIGABYTE)
