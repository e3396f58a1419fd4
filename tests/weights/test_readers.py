"""Every type that checkpoints come in, and every file that must not be trusted."""

import json
import os
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from realisvsr_jax.errors import InputError
from realisvsr_jax.weights.readers import read_tensors, weight_files

TYPES = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    return {
        name: torch.from_numpy(rng.standard_normal((3, 5))).to(getattr(torch, name))
        for name in TYPES
    } | {"scalar": torch.tensor(2.5)}


def save(tensors, path):
    save = save_file if path.suffix == ".safetensors" else torch.save
    save(tensors, path)
    return path


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_every_float_is_read_as_it_is(tensors, tmp_path, name):
    found = read_tensors([save(tensors, tmp_path / name)])
    assert found.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert found[key].value.dtype.name == str(tensor.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(found[key].value.astype(np.float64), tensor.double().numpy())
        assert found[key].path == tmp_path / name


def test_a_state_dict_may_be_wrapped(tensors, tmp_path):
    path = save({"epoch": 3, "state_dict": tensors}, tmp_path / "x.pth")
    assert read_tensors([path]).keys() == tensors.keys()


class Writes:
    """What a hostile file holds: unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, zipped):
    path, written = tmp_path / "x.pth", tmp_path / "written"
    content = {"a": torch.ones(2), "b": Writes(written)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        InputError, match=r"x\.pth (is refused: .*posix\.system|cannot be read: .*1\.6)"
    ):
        read_tensors([path])
    assert not written.exists()


def header(path, text: bytes, length: int | None = None, data: bytes = b""):
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


@pytest.mark.parametrize(
    ("text", "length", "data"),
    [
        (b"{}", 1 << 62, b""),
        (b"{}", 200 << 20, b""),
        (b'{"a": ', None, b""),
        (json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}})
         .encode(), None, b"1234"),
        (json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode(),
         None, b"12345678"),
        (json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}).encode(),
         None, b"1234"),
        (json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}).encode(),
         None, b""),
    ],
)  # fmt: skip
def test_headers_that_cannot_be_true_are_refused(tmp_path, text, length, data):
    with pytest.raises(InputError, match=r"x\.safetensors cannot be read"):
        read_tensors([header(tmp_path / "x.safetensors", text, length, data)])


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_files_cut_short_are_refused(tensors, tmp_path, name, share):
    path = save(tensors, tmp_path / name)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError) as error:
        read_tensors([path])
    assert str(error.value).startswith(f"{path} cannot be read: ")
    assert str(error.value).endswith("; it may be cut short or damaged: download it again")


def test_a_damaged_archive_is_refused(tensors, tmp_path):
    path = save(tensors, tmp_path / "x.pth")
    whole = bytearray(path.read_bytes())
    place = whole.find(b"_rebuild")
    whole[place : place + 8] = b"\xe4\xff\x00\x80\x02ab."
    path.write_bytes(whole)
    with pytest.raises(InputError, match="it may be cut short or damaged: download it again"):
        read_tensors([path])


def test_what_stands_in_for_a_file_is_told(tensors, tmp_path):
    path = tmp_path / "x.pth"
    path.write_text("<!DOCTYPE html>" * 9)
    with pytest.raises(InputError, match="it is no file of PyTorch's; it may be cut short or"):
        read_tensors([path])
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"it is in PyTorch's format before 1\.6; load it and tor"):
        read_tensors([path])
    for name in ("x.pth", "x.safetensors"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        with pytest.raises(InputError, match="it is a pointer of Git LFS; run git lfs pull"):
            read_tensors([tmp_path / name])
    with pytest.raises(InputError, match=r"y\.pth cannot be read: No such file or directory$"):
        read_tensors([tmp_path / "y.pth"])


def test_what_is_no_weight_is_refused(tmp_path):
    save_file({"a": torch.ones(2, dtype=torch.int64)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"the tensor a is of type I64; known: F64, F32"):
        read_tensors([tmp_path / "x.safetensors"])
    torch.save({"a": torch.ones(2, dtype=torch.int64)}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"the tensor a is of type torch\.int64, not a float"):
        read_tensors([tmp_path / "x.pth"])
    torch.save({"a": 3}, tmp_path / "y.pth")
    with pytest.raises(InputError, match=r"y\.pth is no state dict"):
        read_tensors([tmp_path / "y.pth"])


def test_a_tensor_in_two_files_is_refused(tensors, tmp_path):
    paths = [save(tensors, tmp_path / name) for name in ("a.safetensors", "b.pth")]
    with pytest.raises(InputError, match=r"b\.pth: 7 tensors doubled: bfloat16, .*; also in"):
        read_tensors(paths)


def test_links_stay_in_their_folder(tensors, tmp_path):
    outside = save(tensors, tmp_path / "secret.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "x.safetensors").symlink_to(outside)
    with pytest.raises(InputError, match=r"x\.safetensors is a link that leads out of"):
        weight_files(folder)
    (folder / "x.safetensors").unlink()
    save(tensors, folder / "y.safetensors")
    (folder / "x.safetensors").symlink_to("y.safetensors")
    assert [path.name for path in weight_files(folder)] == ["x.safetensors", "y.safetensors"]
    (folder / "z.safetensors").symlink_to("gone.safetensors")
    with pytest.raises(InputError, match=r"z\.safetensors is no file"):
        weight_files(folder)


def test_the_hubs_cache_is_links(tensors, tmp_path):
    """models--o--n/snapshots/REVISION/x.safetensors -> ../../blobs/HASH."""
    blobs, snapshot = tmp_path / "m" / "blobs", tmp_path / "m" / "snapshots" / "abc" / "vae"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    save(tensors, tmp_path / "x.safetensors").rename(blobs / "123")
    (snapshot / "x.safetensors").symlink_to("../../../blobs/123")
    assert read_tensors(weight_files(snapshot)).keys() == tensors.keys()
    (snapshot / "y.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="leads out of"):
        weight_files(snapshot)


def test_an_index_names_its_shards(tensors, tmp_path):
    save(tensors, tmp_path / "m-00001-of-00002.safetensors")
    index = tmp_path / "m.safetensors.index.json"
    names = {"a": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"}
    index.write_text(json.dumps({"weight_map": names}))
    with pytest.raises(InputError, match=r"1 shard of m\..* missing: m-00002-of-00002\.saf"):
        weight_files(tmp_path)
    index.write_text("{")
    with pytest.raises(InputError, match=r"index\.json cannot be read"):
        weight_files(tmp_path)


def test_values_are_mapped_not_read(tmp_path):
    save_file({"a": torch.zeros(1 << 20)}, tmp_path / "x.safetensors")
    value = read_tensors([tmp_path / "x.safetensors"])["a"].value
    base = value
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        value[0] = 1
    changed = read_tensors([tmp_path / "x.safetensors"], "c")["a"].value
    changed[0] = 1
    assert read_tensors([tmp_path / "x.safetensors"])["a"].value[0] == 0
