"""What the tables of names share: each is a bijection, in both dialects, and names misfits."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from random_networks import numbered

from realisvsr_jax.errors import InputError
from realisvsr_jax.model.cpc import CPCConfig
from realisvsr_jax.model.realisvsr import RealisVSR, RealisVSRConfig
from realisvsr_jax.model.wan_dit import DiTConfig, WanDiT
from realisvsr_jax.text.umt5 import UMT5Config, UMT5Encoder
from realisvsr_jax.vae.wan_vae import WAN_VAE, WanVAE
from realisvsr_jax.weights import assembly, dit_keymap, keymap, umt5_keymap, vae_keymap
from realisvsr_jax.weights.keymap import DIALECTS, Rule
from realisvsr_jax.weights.readers import Tensor
from realisvsr_jax.weights.writers import Stored

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of names, of the small network that `constructor` makes."""

    constructor: Callable[[], nnx.Module]
    rules: Callable[[str], tuple[Rule, ...]]
    num_layers: int = 0

    @functools.cached_property
    def arrays(self) -> Arrays:
        """Tensors by our names; no two of their numbers are the same."""
        return numbered(self.constructor)

    def pairs(self, dialect: str) -> list[keymap.Pair]:
        return keymap.pairs(self.rules(dialect), self.num_layers)

    def tensors(self, dialect: str = "diffusers") -> Arrays:
        stored = {name: Stored(value, value.dtype) for name, value in self.arrays.items()}
        found = keymap.to_torch(self.pairs(dialect), stored)
        return {name: tensor.value for name, tensor in found.items()}

    def from_torch(self, tensors: Arrays, dialect: str) -> Arrays:
        given = {name: Tensor(value, name, Path("x.pth")) for name, value in tensors.items()}
        shapes = assembly.expected(self.constructor)
        found = keymap.renamed(self.pairs(dialect), given, shapes, "x.pth")
        return {name: tensor.value for name, tensor in found.items()}


_DIT = DiTConfig(
    dim=12, ffn_dim=20, num_heads=2, num_layers=3, in_channels=4, out_channels=5, text_dim=6
)
_UMT5 = UMT5Config(
    vocab_size=11, d_model=6, d_kv=2, num_heads=2, d_ff=8, num_layers=3, num_buckets=8
)
_VAE = dataclasses.replace(WAN_VAE, base_dim=2, z_dim=3, mean=(0.0,) * 3, std=(1.0,) * 3)
DIT = Table(lambda: WanDiT(_DIT, rngs=nnx.Rngs(0)), dit_keymap.rules, _DIT.num_layers)
CPC = Table(
    lambda: RealisVSR(RealisVSRConfig(_DIT, CPCConfig(3, True)), rngs=nnx.Rngs(0)),
    lambda dialect: (
        *dit_keymap.cpc_rules(True, dialect),
        *(dataclasses.replace(r, ours=f"dit/{r.ours}") for r in dit_keymap.rules(dialect)),
    ),
    3,
)
UMT5 = Table(lambda: UMT5Encoder(_UMT5, rngs=nnx.Rngs(0)), umt5_keymap.rules, _UMT5.num_layers)
VAE = Table(lambda: WanVAE(_VAE, rngs=nnx.Rngs(0)), lambda dialect: vae_keymap.rules(_VAE, dialect))
TABLES = {"dit": DIT, "dit and cpc": CPC, "umt5": UMT5, "vae": VAE}

every_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
every_dialect = pytest.mark.parametrize("dialect", DIALECTS)


@every_table
@every_dialect
def test_round_trip_is_exact_and_covers_every_parameter(table, dialect):
    arrays, tensors = table.arrays, table.tensors(dialect)
    assert sum(t.size for t in tensors.values()) == sum(a.size for a in arrays.values())
    back = table.from_torch(tensors, dialect)
    assert back.keys() == arrays.keys()
    for path, value in arrays.items():
        np.testing.assert_array_equal(back[path], value, err_msg=path)


@every_table
@every_dialect
def test_no_name_stands_twice(table, dialect):
    rules = table.rules(dialect)
    assert len({rule.ours for rule in rules}) == len({rule.torch for rule in rules}) == len(rules)


@every_table
@every_dialect
def test_missing_unknown_and_misshapen_tensors_are_named(table, dialect):
    tensors = table.tensors(dialect)
    with pytest.raises(InputError, match=r"^x\.pth: 1 tensor unknown: some\.extra \(x\.pth\)$"):
        table.from_torch({**tensors, "some.extra": np.zeros(1)}, dialect)
    for name in (min(tensors), max(tensors)):
        rest = {other: value for other, value in tensors.items() if other != name}
        with pytest.raises(InputError) as raised:
            table.from_torch(rest, dialect)
        assert str(raised.value) == f"x.pth: 1 tensor missing: {name}"
        shape = tensors[name].shape
        with pytest.raises(InputError) as raised:
            table.from_torch({**rest, name: tensors[name][None]}, dialect)
        assert f"{name} {(1, *shape)}, not {shape} (x.pth)" in str(raised.value)


@every_table
def test_the_names_of_the_other_dialect_are_misfits(table):
    with pytest.raises(InputError, match=r"\d+ tensors missing: .+; \d+ tensors unknown: "):
        table.from_torch(table.tensors("diffusers"), "wan")


@every_table
def test_an_unknown_dialect_names_the_known(table):
    with pytest.raises(ValueError, match="'maxdiffusion'; known: diffusers, wan"):
        table.rules("maxdiffusion")
