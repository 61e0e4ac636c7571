"""One picture is one file: the same bytes whenever it is written, and nothing in it says when."""

import time
from pathlib import Path

import numpy as np
import OpenImageIO as oiio

from colorcli.images import FORMATS, extension_of, write_picture


def test_a_picture_written_later_has_the_same_bytes(tmp_path: Path) -> None:
    color = np.random.default_rng(7).random((24, 32, 3), np.float32)
    for alpha in (None, color[:, :, 0]):
        written: list[dict[str, bytes]] = []
        for folder in (tmp_path / "first", tmp_path / "second"):
            if written:
                time.sleep(1.1)  # the libraries write whole seconds
            folder.mkdir(exist_ok=True)
            for name, kind in FORMATS.items():
                write_picture(folder / f"{name}{extension_of(kind)}", color, alpha, kind)
            written.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert written[0] == written[1]


def test_no_file_says_when_it_was_written(tmp_path: Path) -> None:
    for name, kind in FORMATS.items():
        path = tmp_path / f"{name}{extension_of(kind)}"
        write_picture(path, np.ones((8, 8, 3), np.float32), None, kind)
        opened = oiio.ImageInput.open(str(path))
        assert opened.spec().get_string_attribute("DateTime", "none") == "none", name
        opened.close()
