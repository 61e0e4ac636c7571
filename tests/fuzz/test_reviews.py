"""Pages of shots whose manifest and journals somebody edited: a page or words, and no picture from elsewhere."""

import base64
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from colorcli.errors import ColorcliError
from colorcli.images import read_picture
from colorcli.review.page import write_page
from colorcli.review.pictures import Album, page_copy
from colorcli.review.reviewed import review_shot
from colorcli.shot.manifest import FrameRecord, Manifest, manifest_text, record_line
from tests.fuzz.mutations import scratch
from tests.fuzz.test_edited_manifests import VALUES, lay_out, whole
from tests.review.studio import Page
from tests.shot.studio import draw


def page_or_words(changed: dict[str, bytes]) -> None:
    """Review the shot with other content of its files: a page that a parser reads, or an error that is ours."""
    with scratch() as folder:
        out = lay_out(folder, **changed)
        secret = page_copy(read_picture(draw(folder / "secret.png", 7)), 960).data
        album = Album()
        try:
            shot = review_shot(out, album, threads=1)
        except ColorcliError:
            return
        write_page(folder / "page.html", [shot], album, rate=24, title=shot.name)
        page = Page((folder / "page.html").read_text(encoding="utf-8"))
        assert len(page.data["shots"][0]["frames"]) == len(shot.frames)  # type: ignore[arg-type]
        # The scripts are those of the template: data, pictures, and the one that runs.
        assert len([1 for attributes, _ in page.scripts if attributes[""] == "script"]) == len(album) + 2
        assert secret not in [base64.b64decode(page.picture(number)) for number in range(len(album))]


@given(st.sampled_from(sorted(FrameRecord.model_fields)), VALUES | st.just("../secret.png"))
def test_a_record_with_another_value(name: str, value: Any) -> None:
    first, *others = whole()["walk_color/frames.jsonl"].splitlines()
    record = {key: entry for key, entry in json.loads(first).items() if key != "sum"} | {name: value}
    try:
        line = record_line(FrameRecord.model_validate_json(json.dumps(record)))
    except ValueError:
        return  # no record at all
    page_or_words({"journal": b"\n".join([line, *others, b""])})


@given(st.sampled_from(sorted(Manifest.model_fields)), VALUES)
def test_a_manifest_with_another_value(name: str, value: Any) -> None:
    manifest = {key: entry for key, entry in json.loads(whole()["walk_color/manifest.json"]).items() if key != "sum"}
    manifest["schema" if name == "schema_name" else name] = value
    try:
        text = manifest_text(Manifest.model_validate_json(json.dumps(manifest)))
    except ValueError:
        text = json.dumps(manifest)
    page_or_words({"manifest": text.encode()})


@given(st.sampled_from(("lines", "masks", "finish", "layers", "model", "lora")), VALUES)
def test_settings_of_anybody(name: str, value: Any) -> None:
    manifest = json.loads(whole()["walk_color/manifest.json"])
    manifest.pop("sum", None)
    manifest["settings"][name] = value
    text = manifest_text(Manifest.model_validate_json(json.dumps(manifest)))
    page_or_words({"manifest": text.encode()})
