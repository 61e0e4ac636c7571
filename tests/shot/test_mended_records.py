"""Records that lost something are made whole by the next run, where the picture shows that they are right."""

from pathlib import Path

import pytest

from colorcli.shot.manifest import read_records, record_line
from colorcli.shot.verify import verify
from tests.shot.studio import color, draw_shot


@pytest.mark.parametrize("lost", ["settings_sha256", "key_sha256"])
def test_a_record_that_lost_what_it_is_of_says_it_again_and_nothing_is_colored(lost: str, tmp_path: Path) -> None:
    shot = draw_shot(tmp_path / "walk")
    out = color(shot).plans[0].out
    whole = {record.frame: getattr(record, lost) for record in read_records(out)}
    (journal,) = out.glob("frames*.jsonl")
    stripped = [record.model_copy(update={lost: None}) for record in read_records(out)]
    journal.write_bytes(b"".join(record_line(record) + b"\n" for record in stripped))
    assert color(shot).colored == []
    assert {record.frame: getattr(record, lost) for record in read_records(out)} == whole and not verify(out)
