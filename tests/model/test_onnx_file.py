"""An ONNX file is looked at before anything is loaded: whole or not, whose, where its weights are."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from colorcli.errors import WeightsError
from colorcli.model.onnx_file import known_file, read_onnx_file
from tests.model.onnx_made import darkness, f32, near_ink, node, save


def refused(path: Path) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        read_onnx_file(path)
    assert str(path) in caught.value.message
    return caught.value


def test_license_and_ending_are_read_as_onnx_itself_reads_them(tmp_path: Path) -> None:
    path = near_ink(tmp_path / "mine.onnx", metadata={"license": "CC-BY-4.0", "author": "Ada"})
    file = read_onnx_file(path)
    assert dict(file.metadata) == {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert (file.license, file.license_from, file.license_in_words) == ("CC-BY-4.0", "file", "CC-BY-4.0")
    assert dict(file.endings) == {"mask": "Sigmoid"}


def test_the_ending_is_found_behind_what_only_changes_the_shape(tmp_path: Path) -> None:
    nodes = [
        node("ReduceMean", "picture", "mean", axes=[1], keepdims=1),
        node("Sigmoid", "mean", "found"),
        node("Identity", "found", "same"),
        node("Squeeze", "same axes", "mask"),
        node("Tanh", "mean", "other"),
    ]
    path = save(tmp_path / "a.onnx", nodes, outputs=("mask", "other"), constants={"axes": np.array([0])})
    assert dict(read_onnx_file(path).endings) == {"mask": "Sigmoid", "other": "Tanh"}


@pytest.mark.parametrize(
    ("name", "license", "kind"),
    [
        ("isnet-anime.onnx", "Apache-2.0", "isnet"),
        ("isnetis.onnx", "Apache-2.0", "isnet"),
        ("isnet-general-use.onnx", "Apache-2.0", "birefnet"),
        ("u2netp.onnx", "Apache-2.0", "birefnet"),
        ("BiRefNet-general-epoch_244.onnx", "MIT", "birefnet"),
        ("bria-rmbg-2.0.onnx", "CC-BY-NC-4.0", "birefnet"),
        ("RMBG_2.0.onnx", "CC-BY-NC-4.0", "birefnet"),
    ],
)
def test_well_known_files_are_known_by_name_and_that_is_said(
    tmp_path: Path, name: str, license: str, kind: str
) -> None:
    file = read_onnx_file(darkness(tmp_path / name))
    assert (file.license, file.license_from) == (license, "name")
    assert "by its name" in file.license_in_words
    known = known_file(name)
    assert known is not None and known.kind == kind


def test_what_the_file_says_counts_more_than_its_name(tmp_path: Path) -> None:
    file = read_onnx_file(darkness(tmp_path / "u2net.onnx", metadata={"license": "GPL-3.0-only"}))
    assert (file.license, file.license_from) == ("GPL-3.0-only", "file")


def test_a_license_that_nobody_states_is_not_stated(tmp_path: Path) -> None:
    file = read_onnx_file(darkness(tmp_path / "mine.onnx"))
    assert (file.license, file.license_from) == ("not stated", "nowhere")


def test_the_hash_is_that_of_the_file_wherever_it_lies(tmp_path: Path) -> None:
    path = darkness(tmp_path / "mine.onnx")
    moved = shutil.copy(path, tmp_path / "other.onnx")
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_onnx_file(path).sha256() == read_onnx_file(moved).sha256() == expected


def test_weights_beside_the_file_are_part_of_the_hash(tmp_path: Path) -> None:
    path = darkness(tmp_path / "mine.onnx", external="mine.data")
    file = read_onnx_file(path)
    assert file.external == (tmp_path / "mine.data",)
    before = file.sha256()
    (tmp_path / "mine.data").write_bytes(b"other weights")
    assert read_onnx_file(path).sha256() != before


def test_weights_that_are_not_beside_the_file_are_named(tmp_path: Path) -> None:
    path = darkness(tmp_path / "mine.onnx", external="mine.data")
    (tmp_path / "mine.data").unlink()
    assert "mine.data" in refused(path).message


@pytest.mark.parametrize("location", ["../secret.data", "/etc/passwd", "a/../../b", "C:\\secret.data", "..\\b"])
def test_a_file_that_reaches_out_of_its_folder_is_refused(tmp_path: Path, location: str) -> None:
    path = darkness(tmp_path / "mine.onnx", external="mine.data")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    error = refused(path)
    assert location in error.message and "refused" in error.message


def outside() -> onnx.TensorProto:
    """A tensor whose numbers lie in a file outside of the network's folder."""
    tensor = onnx.TensorProto(dims=[1], data_type=onnx.TensorProto.FLOAT, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret.data")
    return tensor


def foreign() -> onnx.GraphProto:
    return onnx.GraphProto(node=[node("Magic", "picture", "mask", domain="my.ops")])


def holding(part: str, attribute: onnx.AttributeProto) -> onnx.ModelProto:
    """A network with an attribute somewhere in it."""
    operation = onnx.NodeProto(op_type="Constant", output=["mask"], attribute=[attribute])
    model = onnx.ModelProto(ir_version=9)
    if part == "node":
        model.graph.node.append(operation)
    elif part == "branch":
        branch = onnx.GraphProto(node=[operation])
        inner = onnx.AttributeProto(name="then_branch", type=onnx.AttributeProto.GRAPH, g=branch)
        model.graph.node.append(onnx.NodeProto(op_type="If", output=["mask"], attribute=[inner]))
    elif part == "function":
        model.functions.append(onnx.FunctionProto(name="blur", node=[operation]))
    else:
        model.functions.append(onnx.FunctionProto(name="blur", attribute_proto=[attribute]))
    model.graph.SetInParent()
    return model


@pytest.mark.parametrize("part", ["node", "branch", "function", "default of a function"])
@pytest.mark.parametrize("kind", ["t", "tensors", "sparse_tensor", "g", "graphs"])
def test_weights_from_elsewhere_are_found_wherever_a_network_has_them(tmp_path: Path, part: str, kind: str) -> None:
    sparse, graph = onnx.SparseTensorProto(values=outside()), onnx.GraphProto(initializer=[outside()])
    values = {"t": outside(), "tensors": [outside()], "sparse_tensor": sparse, "g": graph, "graphs": [graph]}
    path = tmp_path / "mine.onnx"
    path.write_bytes(holding(part, onnx.AttributeProto(name="value", **{kind: values[kind]})).SerializeToString())
    error = refused(path)
    assert "../secret.data" in error.message and "refused" in error.message


@pytest.mark.parametrize("part", ["node", "branch", "function", "default of a function"])
def test_foreign_operations_are_found_wherever_a_network_has_them(tmp_path: Path, part: str) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(holding(part, onnx.AttributeProto(name="body", g=foreign())).SerializeToString())
    assert "my.ops" in refused(path).message


def test_operations_of_somebody_elses_library_are_refused(tmp_path: Path) -> None:
    nodes = [node("Magic", "picture", "mask", domain="my.ops")]
    error = refused(save(tmp_path / "mine.onnx", nodes, domain="my.ops"))
    assert "my.ops" in error.message


def test_a_file_that_was_cut_off_says_how_much_is_missing(tmp_path: Path) -> None:
    path = darkness(tmp_path / "mine.onnx", metadata={"license": "MIT"})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    error = refused(path)
    assert "cut off" in error.message and str(len(whole) // 2) in error.message


def test_every_cut_of_a_file_is_refused_or_leaves_the_whole_network(tmp_path: Path) -> None:
    path = darkness(tmp_path / "mine.onnx", metadata={"license": "MIT"})
    whole = path.read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        try:
            endings = read_onnx_file(cut).endings
        except WeightsError:
            continue
        assert dict(endings) == {"mask": "Add"}, length


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n", "Git LFS"),
        (b"<!DOCTYPE html><html>not found</html>", "web page"),
        (b"PK\x03\x04" + b"\0" * 100, "PyTorch"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "picture"),
        (b"\0" * 100, "not an ONNX file"),
        (b"a few words", "not an ONNX file"),
        (np.random.default_rng(1).bytes(4000), "not an ONNX file"),
    ],
)
def test_a_file_of_another_kind_is_told(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(content)
    assert words in refused(path).message


def test_broken_bytes_never_give_anything_but_a_plain_error(tmp_path: Path) -> None:
    path = near_ink(tmp_path / "mine.onnx", metadata={"license": "MIT"})
    whole = path.read_bytes()
    random = np.random.default_rng(2)
    for _ in range(300):
        broken = bytearray(whole)
        for place in random.integers(0, len(whole), 4):
            broken[place] = random.integers(0, 256)
        path.write_bytes(broken)
        try:
            read_onnx_file(path)
        except WeightsError as error:
            assert str(path) in error.message


def test_missing_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    assert "there is no file" in refused(tmp_path / "none.onnx").message
    assert "is a folder" in refused(tmp_path).message


def test_a_file_without_a_network_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", [], constants={"one": f32(1)}, outputs=())
    model = onnx.load(path)
    model.ClearField("graph")
    path.write_bytes(model.SerializeToString())
    assert "no network" in refused(path).message
