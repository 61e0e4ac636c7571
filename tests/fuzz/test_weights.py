"""Weights that are none: headers that lie, networks that lead elsewhere, lists that were written by hand."""

import contextlib
import functools
import io
import json
import math
import re
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import save

from colorcli.errors import ColorcliError, WeightsError
from colorcli.model.description import describe
from colorcli.model.lora_file import read_lora_file
from colorcli.model.onnx_file import read_onnx_file
from colorcli.model.single_file import header_at, kind_of, read_header, read_metadata
from colorcli.model.weights import family_of, find_weights, read_list, require_whole
from tests.fuzz.mutations import edited, scratch
from tests.model.onnx_made import darkness


def in_a_file(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


@functools.cache
def whole_lora() -> bytes:
    rank = {
        f"unet.down.0.lora_{half}.weight": np.ones(shape, np.float32)
        for half, shape in (("down", (2, 4)), ("up", (4, 2)))
    }
    return bytes(save(rank, {"colorcli.base": "mini", "license": "MIT"}))


NUMBERS = st.one_of(
    st.integers(-5, 100),
    st.sampled_from((2**31, 2**53, 2**63, 2**64, 10**400, -1, 0.5, 1e308)),
    st.none(),
    st.text(max_size=3),
    st.booleans(),
)
ENTRIES = st.one_of(
    st.fixed_dictionaries(
        {
            "dtype": st.one_of(st.sampled_from(("F32", "F16", "BF16", "I64", "F8_E4M3", "BOOL", "X")), NUMBERS),
            "shape": st.one_of(st.lists(NUMBERS, max_size=5), NUMBERS),
            "data_offsets": st.one_of(st.lists(NUMBERS, max_size=3), NUMBERS),
        }
    ),
    NUMBERS,
    st.lists(NUMBERS, max_size=2),
)
HEADERS = st.dictionaries(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            (
                "__metadata__",
                "unet.a.lora_down.weight",
                "unet.a.lora_up.weight",
                "unet.a.alpha",
                "model.diffusion_model.input_blocks.0.0.weight",
            )
        ),
    ),
    ENTRIES,
    max_size=4,
).map(lambda header: json.dumps(header).encode())


@given(
    st.one_of(
        st.tuples(HEADERS, st.binary(max_size=40)).map(lambda parts: in_a_file(*parts)),
        st.builds(lambda content: content, st.deferred(lambda: edited(whole_lora()))),
        st.binary(max_size=100),
    )
)
@example(in_a_file(b'{"a":' + b"[" * 200_000))
@example(in_a_file(b'{"a":' * 100_000))
@example(in_a_file(b'{"a": {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}}', bytes(16)))
@example(in_a_file(b'{"a": {"dtype": "F32", "shape": [], "data_offsets": [0, ' + b"9" * 5000 + b"]}}"))
@example(in_a_file(json.dumps({"a": {"dtype": "F32", "shape": [2**31] * 15, "data_offsets": [0, 0]}}).encode()))
@example((2**64 - 1).to_bytes(8, "little") + b"{")
def test_a_header_of_any_bytes_lists_tensors_that_lie_in_the_file_or_is_refused(content):
    with scratch() as folder:
        file = folder / "a.safetensors"
        file.write_bytes(content)
        for read in (read_header, header_at):
            try:
                header = read(file)
            except WeightsError:
                continue
            kind_of(header)
            for entry in header.values():
                assert entry.start >= 0 and entry.start + entry.bytes <= len(content)
                assert all(side >= 0 for side in entry.shape)
                bits = re.search(r"\d+", entry.dtype)   # the names of the format say how many: F32, I64, F8_E4M3
                assert bits is None or 8 * entry.bytes == int(bits[0]) * math.prod(entry.shape)
        with contextlib.suppress(WeightsError):
            assert all(isinstance(text, str) for pair in read_metadata(file).items() for text in pair)
        with contextlib.suppress(WeightsError):
            assert read_lora_file(file).rank > 0
        with contextlib.suppress(ColorcliError):
            family_of(str(file))
        with contextlib.suppress(ColorcliError):
            describe(str(file))


@functools.cache
def whole_network() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return darkness(Path(folder) / "a.onnx").read_bytes()


@given(st.one_of(st.deferred(lambda: edited(whole_network())), st.binary(max_size=200)))
@example(b"\x3a" * 5000)
@example(b"\x3a\x04\x0a\x02\x2a\x00" * 100)
def test_a_network_of_any_bytes_is_looked_at_or_refused(content):
    with scratch() as folder:
        file = folder / "a.onnx"
        file.write_bytes(content)
        (folder / "beside.bin").write_bytes(b"x")
        try:
            found = read_onnx_file(file)
        except WeightsError as error:
            assert "a.onnx" in error.message
            return
        for path in found.external:
            assert path.resolve().is_relative_to(folder.resolve())
        found.sha256()


NAMES = st.one_of(
    st.text(max_size=10),
    st.sampled_from(
        ("../a", "/etc/passwd", "a/../../b", "unet.safetensors", "", ".", "a\0b", "C:\\a", "/dev/zero", "pipe")
    ),
)
LISTS = st.one_of(
    st.fixed_dictionaries(
        {
            "schema": st.one_of(st.sampled_from(("colorcli/weights/1", "colorcli/weights/9")), NUMBERS),
            "model": st.one_of(st.just("mini"), NUMBERS),
            "license": NUMBERS,
            "files": st.one_of(
                st.dictionaries(
                    NAMES, st.one_of(st.fixed_dictionaries({"sha256": NUMBERS, "bytes": NUMBERS}), NUMBERS), max_size=3
                ),
                NUMBERS,
            ),
        }
    ),
    NUMBERS,
    st.lists(NUMBERS, max_size=3),
)


@given(LISTS.map(lambda value: json.dumps(value).encode()), st.sampled_from(("weights.json", "model_index.json")))
@example(b"[" * 200_000, "weights.json")
@example(b"[" * 200_000, "model_index.json")
@example(b"[]", "model_index.json")
@example(b'{"unet": {"0": 1}, "sketch_encoder": 7}', "model_index.json")
def test_a_list_of_weights_of_any_content_stays_in_its_folder(content, name):
    with scratch() as folder:
        (folder / "m").mkdir()
        (folder / "m" / name).write_bytes(content)
        try:
            listed = read_list(folder / "m")
        except WeightsError:
            pass
        else:
            for file in listed.files:
                assert (folder / "m" / file).resolve().is_relative_to((folder / "m").resolve())
        for look in (
            require_whole,
            lambda path: family_of(str(path)),
            lambda path: find_weights(str(path)),
            lambda path: describe(str(path)),
        ):
            with contextlib.suppress(ColorcliError), contextlib.redirect_stderr(io.StringIO()):
                look(folder / "m")
