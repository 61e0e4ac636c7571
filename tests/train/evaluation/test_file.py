"""An evaluation is read again as it was printed, set beside others, and shown as a page that needs nothing else."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from colorcli.errors import UsageError
from colorcli.train.evaluation.evaluate import EvaluationRow, FrameResult, Group
from colorcli.train.evaluation.file import SCHEMA, compare, comparison_markdown, read_evaluation
from colorcli.train.evaluation.page import WorstFrames, comparison_page, evaluation_page


def saved(path, rights, levels=2.0, *, sha="a", settings=None, judge="j"):
    """Write an evaluation of as many shots as there are shares of right regions."""
    rows = [{"shot": f"s{n}", "key": f"s{n}", "pairing": "own", "frames": 1, "regions": 9, "accuracy": right,
             "levels": levels} for n, right in enumerate(rights)]
    summary = {
        "schema": SCHEMA, "data": {"sha256": sha}, "judge": {"sha256": judge},
        "preset": {"settings": settings or {"model": path.stem, "sampling": {"steps": 1}}},
        "groups": [{"pairing": "own", "scores": {"accuracy": float(np.mean(rights)), "levels": levels}}],
    }
    path.write_text("\n".join(json.dumps(line) for line in (*rows, {"summary": summary})) + "\n")
    return path


def side_by_side(*paths):
    return compare([read_evaluation(path) for path in paths])


def test_changes_are_held_against_the_first_with_their_standard_error(tmp_path):
    found = side_by_side(saved(tmp_path / "a.json", [0.5, 0.6, 0.7]), saved(tmp_path / "b.json", [0.6, 0.8, 0.8], 3.0))
    accuracy, levels = (score.values[1] for score in found.scores)
    assert found.names == ("a", "b")
    assert accuracy.change == pytest.approx(0.4 / 3)
    # The changes are 0.1, 0.2 and 0.1: their deviation is sqrt(1/300), and of the mean of three a root of three less.
    assert accuracy.error == pytest.approx((1 / 300) ** 0.5 / 3**0.5)
    assert (accuracy.better, accuracy.sure) == (True, True)
    assert (levels.change, levels.better) == (1, False)
    assert found.scores[0].values[0].change is None
    assert found.notes == ()


def test_a_change_that_the_shots_do_not_agree_on_is_not_sure(tmp_path):
    found = side_by_side(saved(tmp_path / "a.json", [0.5, 0.6]), saved(tmp_path / "b.json", [0.9, 0.3]))
    assert not found.scores[0].values[1].sure


def test_what_else_differs_is_said(tmp_path):
    other = saved(tmp_path / "b.json", [0.5], sha="b", settings={"model": "x", "sampling": {"steps": 4}}, judge="k")
    notes = "\n".join(side_by_side(saved(tmp_path / "a.json", [0.5]), other).notes)
    assert "did not measure the same pictures" in notes
    assert "same judge" in notes
    assert "sampling.steps 1 / 4" in notes
    assert "model" not in notes


def test_files_of_one_name_stay_apart(tmp_path):
    (tmp_path / "x").mkdir()
    found = side_by_side(saved(tmp_path / "a.json", [0.5]), saved(tmp_path / "x" / "a.json", [0.5]))
    assert found.names == ("a 1", "a 2")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no json", "line 1 of it.json is no JSON"),
        ('{"other": 1}', "line 1 of it.json is no row of an evaluation"),
        ('{"shot": "a"}\n', "has no summary at its end"),
        ("", "has no summary at its end"),
        ('{"summary": {"schema": "colorcli/evaluation/99"}}', "this colorcli reads"),
    ],
)
def test_a_file_that_is_no_evaluation_is_refused(tmp_path, text, says):
    (tmp_path / "it.json").write_text(text)
    with pytest.raises(UsageError, match=says):
        read_evaluation(tmp_path / "it.json")


def test_a_missing_file_and_a_single_one_are_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        read_evaluation(tmp_path / "nowhere.json")
    with pytest.raises(UsageError, match="two evaluations"):
        side_by_side(saved(tmp_path / "a.json", [0.5]))


def test_a_comparison_is_a_table_in_markdown(tmp_path):
    lines = comparison_markdown(
        side_by_side(saved(tmp_path / "a.json", [0.5, 0.6]), saved(tmp_path / "b.json", [0.8, 0.91]))
    ).splitlines()
    assert lines[:3] == ["| own | a | b |", "|---|---|---|",
                         "| right, higher is better | 0.550 | 0.855 (+0.305 ± 0.005)* |"]
    assert {line.count("|") for line in lines if line.startswith("|")} == {4}


# --- the page ------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Reads a page, and checks that every element is closed in its turn."""

    ALONE = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.links, self.text = [], [], [], []
        self.feed(text)
        assert self.open == [], self.open

    def handle_starttag(self, tag, attributes):
        self.found.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.ALONE:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        self.text.append(data)


def result(frame, accuracy, pairing="own", **more):
    picture = np.full((300, 200, 3), accuracy, np.float32)
    return FrameResult("walk & <run>", "key", pairing, frame, picture, picture, picture, picture,
                       {"accuracy": accuracy, **more})


def test_the_worst_frames_come_first_and_no_more_than_asked_for():
    worst = WorstFrames(count=3)
    for number, accuracy in enumerate((0.9, 0.2, 0.7, 0.1, 0.2, 1.0)):
        worst.add(result(f"{number}.png", accuracy))
    assert [shown.note for shown in worst.of("own")] == ["right 0.100", "right 0.200", "right 0.200"]
    assert [shown.title[-5:] for shown in worst.of("own")] == ["3.png", "1.png", "4.png"]
    assert worst.of("shuffled") == []
    worst.add(FrameResult("a", "b", "shuffled", "f", *[np.zeros((8, 8, 3), np.float32)] * 4, {"psnr": None}))
    assert worst.of("shuffled") == []  # nothing tells how bad it is


def test_a_page_holds_all_numbers_and_pictures_and_asks_for_nothing_else():
    worst = WorstFrames()
    worst.add(result("0001.png", 0.25))
    scores = {"accuracy": 0.25, "psnr": None, "fid (mini tagger features)": 1.5}
    rows = [EvaluationRow("walk & <run>", "key", "own", 1, 4, {"accuracy": 0.25}, {})]
    summary = {
        "model": {"asked": "mini", "name": "mini", "sha256": "0" * 64}, "data": {"name": "shots"}, "date": "today",
        "preset": {"name": "cel"}, "judge": {"name": "mini", "sha256": "1" * 64}, "similarity": None,
        "features": {"name": "mini tagger features", "size": 256}, "skipped": ["0001/1.png: broken"],
        "notes": ["a note"],
    }
    page = Page(evaluation_page(rows, [Group("own", 1, 1, 4, scores, {})], summary, worst))
    assert page.found.count("img") == 4
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    text = " ".join(page.text)
    for said in ("walk & <run> 0001.png", "0.250", "FID (mini tagger features)", "a note", "0001/1.png: broken"):
        assert said in text, said
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text.replace("arXiv", "")


def test_a_comparison_is_a_page_too(tmp_path):
    found = side_by_side(saved(tmp_path / "a.json", [0.5, 0.6]), saved(tmp_path / "b.json", [0.8, 0.91]))
    page = comparison_page(found)
    assert "+0.305" in page and "class=good" in page
    assert Page(page).links == []
