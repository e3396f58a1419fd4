"""The name table is a bijection, in both dialects, and complains about every other key."""

import jax
import numpy as np
import pytest
from flax import nnx
from random_networks import numbered

from realisvsr_jax.model.wan_dit import DiTConfig, WanDiT
from realisvsr_jax.weights.dit_keymap import from_torch, rules, to_torch
from realisvsr_jax.weights.keymap import DIALECTS

CONFIG = DiTConfig(
    dim=12, ffn_dim=20, num_heads=2, num_layers=3, in_channels=4, out_channels=5, text_dim=6
)


def flat_arrays() -> dict[str, np.ndarray]:
    return numbered(lambda: WanDiT(CONFIG, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_round_trip_is_exact_and_covers_every_parameter(dialect):
    arrays = flat_arrays()
    tensors = to_torch(arrays, dialect)
    assert sum(t.size for t in tensors.values()) == sum(a.size for a in arrays.values())
    back = from_torch(tensors, CONFIG.num_layers, dialect)
    jax.tree.map(np.testing.assert_array_equal, back, arrays)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_name_stands_twice(dialect):
    table = rules(dialect)
    assert len({rule.ours for rule in table}) == len({rule.torch for rule in table}) == len(table)


def test_wans_own_names_and_shapes():
    tensors = to_torch(flat_arrays(), "wan")
    assert tensors["patch_embedding.weight"].shape == (12, 4, 1, 2, 2)
    assert tensors["blocks.2.ffn.0.weight"].shape == (20, 12)
    assert tensors["blocks.0.modulation"].shape == (1, 6, 12)
    assert tensors["head.modulation"].shape == (1, 2, 12)
    assert tensors["head.head.weight"].shape == (20, 12)
    assert tensors["time_projection.1.bias"].shape == (72,)


def test_the_affine_norm_changes_its_number_between_dialects():
    wan, diffusers = (to_torch(flat_arrays(), dialect) for dialect in ("wan", "diffusers"))
    np.testing.assert_array_equal(wan["blocks.1.norm3.bias"], diffusers["blocks.1.norm2.bias"])
    assert "blocks.1.norm3.bias" not in diffusers


def test_missing_and_unknown_tensors_are_named():
    tensors = to_torch(flat_arrays())
    with pytest.raises(ValueError, match=r"has unknown blocks\.2\.attn1\.norm_k\.weight"):
        from_torch(tensors, num_layers=2)
    del tensors["blocks.1.attn2.to_v.bias"]
    with pytest.raises(ValueError, match=r"the checkpoint lacks blocks\.1\.attn2\.to_v\.bias$"):
        from_torch(tensors, CONFIG.num_layers)


def test_missing_paths_and_uneven_stacks_are_named():
    arrays = flat_arrays()
    short = {**arrays, "blocks/modulation": arrays["blocks/modulation"][:2]}
    with pytest.raises(ValueError, match=r"different layer counts: \[2, 3\]"):
        to_torch(short)
    del arrays["head/linear/bias"]
    with pytest.raises(ValueError, match=r"the network lacks head/linear/bias$"):
        to_torch(arrays)


def test_an_unknown_dialect_names_the_known():
    with pytest.raises(ValueError, match="'maxdiffusion'; known: diffusers, wan"):
        rules("maxdiffusion")
