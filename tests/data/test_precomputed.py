import dataclasses
from pathlib import Path

import numpy as np
import pytest

from realisvsr_jax.data.pipeline import DataConfig, make_batches
from realisvsr_jax.data.precomputed import (
    make_shards,
    open_shards,
    read_batches,
    shard_path,
    write_shard,
)
from realisvsr_jax.errors import InputError

FOOTAGE = Path(__file__).parent.parent / "footage"
TWO = [(2, 16, 16), (4, 8, 24)]
CONFIG = DataConfig(sources=(str(FOOTAGE),), buckets=((3, 96, 96),), batch_size=2)


@pytest.fixture
def pairs(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(2):
        lq = rng.integers(0, 256, (6, 4, 8, 8, 3), dtype=np.uint8)
        write_shard(
            tmp_path, number, {"gt": np.kron(lq, np.ones((1, 1, 4, 4, 1), np.uint8)), "lq": lq}
        )
    return tmp_path


def test_shards_hold_what_a_run_would_have_been_given(tmp_path):
    counted = []
    make_shards(tmp_path, CONFIG, 8, 4, progress=counted.append)
    wanted = list(make_batches(CONFIG, num_steps=4))
    shards = open_shards(tmp_path)
    assert len(shards) == 2
    assert sum(counted) == 8
    for name in ("gt", "lq"):
        stored = np.concatenate([shard[name] for shard in shards])
        np.testing.assert_array_equal(stored, np.concatenate([batch[name] for batch in wanted]))


def test_making_goes_on_where_it_stopped(tmp_path):
    make_shards(tmp_path, CONFIG, 8, 4)
    last = shard_path(tmp_path, 1)
    before = np.load(last / "lq.npy")
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    kept = shard_path(tmp_path, 0).stat().st_mtime_ns
    make_shards(tmp_path, CONFIG, 8, 4)
    np.testing.assert_array_equal(np.load(last / "lq.npy"), before)
    assert shard_path(tmp_path, 0).stat().st_mtime_ns == kept


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"seed": 1}, "data seed was 0, now it is 1"),
        ({"degradation": "light"}, "data degradation was paper, now it is light"),
        ({"buckets": ((1, 96, 96),)}, "data buckets was"),
    ],
)
def test_pairs_of_other_settings_are_never_mixed(tmp_path, changed, line):
    make_shards(tmp_path, CONFIG, 4, 4)
    with pytest.raises(InputError, match=f"was made with other settings: {line}"):
        make_shards(tmp_path, dataclasses.replace(CONFIG, **changed), 8, 4)
    with pytest.raises(InputError, match="shard was 4, now it is 8"):
        make_shards(tmp_path, CONFIG, 8, 8)
    with pytest.raises(InputError, match="vae was None, now it is abc"):
        make_shards(tmp_path, CONFIG, 8, 4, vae="abc")
    assert len(open_shards(tmp_path)) == 1
    # Neither decides what is in a pair.
    make_shards(tmp_path, dataclasses.replace(CONFIG, batch_size=1, workers=1), 8, 4)
    assert len(open_shards(tmp_path)) == 2


def test_pairs_of_another_revision_of_the_degradation_are_not_mixed(tmp_path, monkeypatch):
    make_shards(tmp_path, CONFIG, 4, 4)
    monkeypatch.setattr("realisvsr_jax.data.precomputed.REVISION", 1000)
    with pytest.raises(InputError, match=r"revision was .*, now it is 1000"):
        make_shards(tmp_path, CONFIG, 8, 4)


def test_shards_without_a_recipe_are_read_and_not_added_to(pairs):
    with pytest.raises(InputError, match=r"has shards, but no pairs\.json says how"):
        make_shards(pairs, CONFIG, 12, 6)
    assert len(open_shards(pairs)) == 2


def test_a_transform_replaces_the_pixels(tmp_path):
    def means(batch):
        return {"gt_latent": batch["gt"].mean((1, 2, 3)).astype(np.float16)}

    make_shards(tmp_path, CONFIG, 4, 4, means)
    (shard,) = open_shards(tmp_path)
    assert shard["gt_latent"].shape == (4, 3)
    assert shard["gt_latent"].dtype == np.float16


def test_crops_keep_the_pair_aligned_and_a_step_is_its_own(pairs):
    whole = list(read_batches(pairs, 3, TWO, latent_buckets=[], seed=1, num_steps=6))
    for batch in whole:
        blown_up = np.kron(batch["lq"], np.ones((1, 1, 4, 4, 1), np.uint8))
        np.testing.assert_array_equal(batch["gt"], blown_up)
    assert {batch["gt"].shape for batch in whole} == {(3, 2, 16, 16, 3), (3, 4, 8, 24, 3)}
    later = list(read_batches(pairs, 3, TWO, latent_buckets=[], seed=1, start_step=4, num_steps=2))
    np.testing.assert_array_equal(later[1]["gt"], whole[5]["gt"])


def test_what_cannot_be_read_is_one_clear_line(pairs, tmp_path):
    with pytest.raises(InputError, match="has no shards; make them with"):
        next(read_batches(tmp_path / "empty", 1, [(1, 8, 8)], latent_buckets=[], seed=0))
    with pytest.raises(InputError, match="a shard has 6 clips, the batch takes 7"):
        next(read_batches(pairs, 7, [(1, 8, 8)], latent_buckets=[], seed=0))
    with pytest.raises(InputError, match="are smaller than bucket"):
        next(read_batches(pairs, 2, [(5, 8, 8)], latent_buckets=[], seed=0))


def test_several_shapes_and_uneven_numbers_are_errors(tmp_path):
    two = dataclasses.replace(CONFIG, buckets=((1, 96, 96), (3, 96, 96)))
    with pytest.raises(InputError, match="must name one shape"):
        make_shards(tmp_path, two, 8, 4)
    with pytest.raises(InputError, match="8 pairs in shards of 3"):
        make_shards(tmp_path, CONFIG, 8, 3)


def test_latents_are_cropped_together_and_come_in_float32(tmp_path):
    gt = np.random.default_rng(0).normal(size=(4, 5, 8, 8, 2)).astype(np.float16)
    write_shard(tmp_path, 0, {"gt_latent": gt, "lq_latent": -gt})
    for batch in read_batches(tmp_path, 2, [], latent_buckets=[(3, 6, 4)], seed=0, num_steps=4):
        assert batch["gt_latent"].shape == (2, 3, 6, 4, 2)
        assert batch["gt_latent"].dtype == np.float32
        np.testing.assert_array_equal(batch["gt_latent"], -batch["lq_latent"])


def test_stored_pairs_are_taken_in_their_order_and_cut(pairs, tmp_path):
    config = DataConfig(buckets=((2, 16, 8),), batch_size=2)
    make_shards(tmp_path / "cut", config, 12, 6, pairs=pairs)
    whole, cut = open_shards(pairs), open_shards(tmp_path / "cut")
    np.testing.assert_array_equal(cut[1]["gt"], whole[1]["gt"][:, :2, :16, :8])
    np.testing.assert_array_equal(cut[1]["lq"], whole[1]["lq"][:, :2, :4, :2])
    with pytest.raises(InputError, match="has 2 shards of 6 pairs; 12 batches of 2"):
        make_shards(tmp_path / "more", config, 24, 6, pairs=pairs)
    large = dataclasses.replace(config, buckets=((2, 64, 64),))
    with pytest.raises(InputError, match="are smaller than bucket"):
        make_shards(tmp_path / "large", large, 12, 6, pairs=pairs)
