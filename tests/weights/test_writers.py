"""Files that the reference library reads back; one piece at a time; what is not finite is named."""

import errno
import json
import logging

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from realisvsr_jax.weights import writers
from realisvsr_jax.weights.readers import metadata
from realisvsr_jax.weights.writers import Stored, save_tensors


def stored(value, dtype=np.float32):
    return Stored(np.asarray(value), np.dtype(dtype), "origin")


@pytest.mark.parametrize("piece", [1, 64, 1 << 20])
def test_the_library_reads_what_was_written(tmp_path, monkeypatch, piece):
    """Odd sizes in between have to leave every value aligned; views need not be contiguous."""
    monkeypatch.setattr(writers, "PIECE_BYTES", piece)
    rng = np.random.default_rng(0)
    values = {
        "a": rng.standard_normal((7, 3)).T,
        "b": rng.standard_normal((3, 4, 5)).transpose(2, 0, 1),
        "c": np.float32(2.5),
        "d": np.empty((0, 3), np.float32),
    }
    tensors = {name: stored(value) for name, value in values.items()}
    tensors["a half"] = stored(rng.standard_normal(5), ml_dtypes.bfloat16)
    (path,) = save_tensors(tmp_path, "x", tensors, metadata={"format": "pt", "card": "{}"})
    loaded = load_file(path)
    assert loaded["a half"].dtype == torch.bfloat16
    for name, value in values.items():
        np.testing.assert_array_equal(loaded[name].numpy(), np.asarray(value, np.float32))
        assert loaded[name].is_contiguous()
    assert metadata(path) == {"format": "pt", "card": "{}"}


def test_shards_have_an_index(tmp_path):
    tensors = {f"t{i}": stored(np.full(100, i)) for i in range(5)}
    paths = save_tensors(tmp_path, "x", tensors, shard_bytes=900, index=True)
    assert [path.name for path in paths] == [f"x-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    index = json.loads((tmp_path / "x.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 2000
    for name, file in index["weight_map"].items():
        assert name in load_file(tmp_path / file)


def test_what_is_not_finite_is_named_and_kept(tmp_path, caplog):
    value = np.arange(6, dtype=np.float16)
    value[[1, 4]] = np.nan, np.inf
    tensors = {"bad": Stored(value, np.dtype(np.float32), "wan.pth: head.bias")}
    tensors["large"] = stored(np.full(9, 3e38))  # finite, though their sum is not
    with caplog.at_level(logging.WARNING):
        (path,) = save_tensors(tmp_path, "x", tensors)
    assert caplog.messages == ["wan.pth: head.bias: 2 values are not finite (NaN or infinite)"]
    np.testing.assert_array_equal(load_file(path)["bad"].numpy(), value.astype(np.float32))


def test_a_full_disk_shows_before_anything_is_written(tmp_path, monkeypatch):
    def full(file, first, size):
        assert size == 8 + 64 + 4096
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        save_tensors(tmp_path, "x", {"a": stored(np.zeros(1024))})
    assert (tmp_path / "x.safetensors").stat().st_size == 0


def test_a_disk_that_reserves_nothing_is_written_to_all_the_same(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("os.posix_fallocate", unsupported)
    (path,) = save_tensors(tmp_path, "x", {"a": stored(np.ones(4))})
    assert load_file(path)["a"].sum() == 4
