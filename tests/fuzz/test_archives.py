"""Training sets from elsewhere: archives and lists that lie, each told and passed over."""

import contextlib
import io
import json
import zipfile

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from colorcli.errors import DataError, FrameError
from colorcli.train.data.archives import MAX_PIXELS, PictureStore, png_bytes
from colorcli.train.data.index import JsonTable
from tests.fuzz.mutations import edited, file_names, scratch


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as written:
        for name, data in members.items():
            written.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()


PICTURE = png_bytes(np.arange(600, dtype=np.uint8).reshape(10, 20, 3))
WHOLE = archive(
    {"set/a.png": PICTURE, "set/b.jpg": PICTURE, "../../out.png": PICTURE, "/tmp/out.png": PICTURE, "set/link": b"/etc"}
)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(/tmp/hostile) (w) file\n"


def bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (12000, 12000)).save(buffer, "PNG")
    return buffer.getvalue()


@given(
    st.one_of(edited(WHOLE), st.binary(max_size=60).map(WHOLE[:10].__add__)),
    st.one_of(
        st.sampled_from(("set/a.png", "set/b.jpg", "../out.png", "/etc/passwd", "set/../../a.png", "set", "", "set/")),
        file_names(suffixes=(".png", "")),
    ),
)
@example(archive({"set/a.png": bytes(2_000_000)}), "set/a.png")
@example(archive({"set/a.png": EPS}), "set/a.png")
@example(archive({"set/a.png": bomb()}), "set/a.png")
@example(b"PK\5\6" + b"\xff" * 18, "set/a.png")
def test_an_archive_of_any_bytes_gives_pictures_or_says_what_is_wrong(content, item):
    with scratch() as folder:
        for kind in ("color", "sketch"):
            (folder / "data" / kind).mkdir(parents=True)
            (folder / "data" / kind / "set.zip").write_bytes(content)
        (folder / "out.png").write_bytes(PICTURE)
        store = PictureStore(folder / "data")
        names = [item]
        with contextlib.suppress(FrameError):
            names += store.members("color", "set")[:5]
        for name in names:
            for read in (store.color, store.gray, store.size):
                try:
                    found = read(name, "color")
                except FrameError as error:
                    assert error.message
                    continue
                size = found if isinstance(found, tuple) else found.size
                assert size[0] * size[1] <= MAX_PIXELS
                assert not name.startswith(("/", "..")) and "/../" not in name
        store.archives("color")
        store.close()
        assert sorted(path.name for path in folder.iterdir()) == ["data", "out.png"]


INDEX = json.dumps(
    {
        f"set/{name}.png": {
            "width": 20,
            "height": 10,
            "aesthetic_score": 5.5,
            "exist_sketch": True,
            "reference_list": ["set/a.png"],
            "tags": ["x"],
        }
        for name in "abc"
    }
).encode()


@given(st.one_of(edited(INDEX), st.text(max_size=100).map(str.encode), st.binary(max_size=60)))
@example(b'{"a":' * 100_000)
@example(b'{"a": ' + b"[" * 200_000 + b"}")
@example(b'{"a": {"width": ' + b"9" * 5000 + b"}}")
@example(b'{"a": {"width": NaN, "height": Infinity, "aesthetic_score": 1e999}}')
@example(b'{"a": {"reference_list": "' + b"[" * 100_000 + b'"}}')
def test_an_index_of_any_text_gives_rows_or_says_what_is_wrong(content):
    with scratch() as folder:
        file = folder / "index.json"
        file.write_bytes(content)
        positions = []
        try:
            for rows in JsonTable(file, chunk=64).rows():
                positions += rows.position.tolist()
                assert (rows.width[rows.readable] >= 1).all()
        except DataError as error:
            assert error.message
        for position in positions[:3]:
            try:
                JsonTable(file).entry(position)
            except FrameError as error:
                assert error.message
