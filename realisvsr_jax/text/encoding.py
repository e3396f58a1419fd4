"""Prompts to text states with an encoder that need not fit into memory: one layer at a time."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from realisvsr_jax.numerics import RMSNorm
from realisvsr_jax.text.tokenizer import Tokenizer
from realisvsr_jax.text.umt5 import Block, UMT5Config, masked_keys, position_buckets

LENGTHS = 64  # texts are padded to a multiple of this, so that few programs are compiled
BATCH = 8
TOKENS = 1 << 15  # whose states are held at once while the layers pass

Part = Callable[[Callable[[], Any], str], Any]


class TextEncoder:
    """UMT5 with its tokenizer; see `UMT5Encoder`, whose states these are."""

    def __init__(
        self,
        config: UMT5Config,
        tokenizer: Tokenizer,
        embedding: np.ndarray,
        part: Part,
        text_length: int = 512,
    ):
        """`embedding` [vocabulary, d_model] may be mapped: only the rows of tokens are read.

        `part(constructor, prefix)` gives a module with the weights whose names have `prefix`.
        """
        self.config, self.tokenizer, self.text_length = config, tokenizer, text_length
        self.embedding, self.part = embedding, part

    @property
    def fingerprint(self) -> str:
        """Tells one encoder's states from another's, whatever type its weights are stored in."""
        norm = self.part(lambda: RMSNorm(self.config.d_model, self.config.eps), "norm.")
        digest = hashlib.sha256(np.asarray(norm.scale[...], np.float32).tobytes())
        digest.update(np.array(self.embedding[:16], np.float32).tobytes())
        return digest.hexdigest()[:16]

    def encode(
        self, prompts: Sequence[str], progress: Callable[[int, int], object] | None = None
    ) -> dict[str, np.ndarray]:
        """The states of each prompt, float32 [s, d_model], cut to its s tokens.

        `progress` is called with (done, total) after every layer.
        """
        prompts = sorted(set(prompts))
        groups = list(self._groups(prompts))
        states: dict[str, np.ndarray] = {}
        for number, group in enumerate(groups):

            def advance(layer: int, number: int = number) -> None:
                if progress is not None:
                    layers = self.config.num_layers
                    progress(number * layers + layer, len(groups) * layers)

            found = self._states([batch[1:] for batch in group], advance)
            for (names, _, mask), values in zip(group, found):
                lengths = mask.sum(1)
                states |= {n: v[:k] for n, v, k in zip(names, values, lengths)}
        return states

    def _groups(self, prompts: list[str]) -> Iterator[list[tuple]]:
        """Batches of (prompts, tokens, mask), short ones first, TOKENS together at the most."""
        tokens, mask = self.tokenizer(prompts, self.text_length)
        order = np.argsort(mask.sum(1), kind="stable")
        group: list[tuple] = []
        held = 0
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            longest = int(mask[rows].sum(1).max())
            length = min(self.text_length, -(-longest // LENGTHS) * LENGTHS)
            if group and held + len(rows) * length > TOKENS:
                yield group
                group, held = [], 0
            names = [prompts[row] for row in rows]
            group.append((names, tokens[rows, :length], mask[rows, :length]))
            held += len(rows) * length
        if group:
            yield group

    def _states(
        self, batches: list[tuple[np.ndarray, np.ndarray]], advance: Callable[[int], None]
    ) -> list[np.ndarray]:
        config = self.config
        states = [np.array(self.embedding[tokens], np.float32) for tokens, _ in batches]
        for layer in range(config.num_layers):
            block = self.part(lambda: Block(config, rngs=nnx.Rngs(0)), f"blocks.{layer}.")
            graph, weights = nnx.split(block)
            for i, (_, mask) in enumerate(batches):
                states[i] = np.asarray(_apply_block(graph, weights, states[i], mask, config))
            advance(layer + 1)
        norm = self.part(lambda: RMSNorm(config.d_model, config.eps), "norm.")
        return [np.asarray(norm(jnp.asarray(x)), np.float32) for x in states]


@jax.jit(static_argnums=(0, 4))
def _apply_block(graph: Any, weights: Any, x: Any, mask: Any, config: UMT5Config) -> jax.Array:
    buckets = position_buckets(mask.shape[1], config)
    return nnx.merge(graph, weights)(x.astype(config.dtype), buckets, masked_keys(mask))
