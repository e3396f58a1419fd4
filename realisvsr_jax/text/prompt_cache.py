"""Prompts and their encoded states: what training and upscaling read instead of an encoder.

One safetensors file; its metadata has the prompts as JSON and what tells their encoder from
others, tensor `i` the states of prompt i, cut to their true length. Zero padding to the model's
text length happens on look-up, before the text MLP (Wan2.1 t5.py and model.py).
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from realisvsr_jax.errors import InputError


class PromptCache:
    """Text states by prompt; `text_length` and `text_dim` are those of the model."""

    def __init__(
        self,
        states: Mapping[str, np.ndarray],
        text_length: int,
        text_dim: int,
        encoder: str = "",
    ):
        """`states`: prompt to float32 [s, e] with s at most `text_length` and e = `text_dim`.

        `encoder` is the fingerprint of the text encoder that made them, '' where unknown.
        """
        for prompt, value in states.items():
            if value.ndim != 2 or value.shape[0] > text_length or value.shape[1] != text_dim:
                raise InputError(
                    f"the text states of {prompt!r} have shape {value.shape}; the model takes at "
                    f"most {text_length} tokens of {text_dim}"
                )
        self.states = dict(states)
        self.text_length = text_length
        self.text_dim = text_dim
        self.encoder = encoder

    @classmethod
    def empty_prompt_only(cls, text_length: int, text_dim: int) -> "PromptCache":
        """The cache of a model that was trained without an encoder: '' is all zeros."""
        return cls({"": np.zeros((1, text_dim), np.float32)}, text_length, text_dim)

    def __contains__(self, prompt: str) -> bool:
        return prompt in self.states

    def joined(self, states: Mapping[str, np.ndarray], encoder: str = "") -> "PromptCache":
        """This cache and `states`, which win; `encoder` made them."""
        size = (self.text_length, self.text_dim)
        return PromptCache(self.states | dict(states), *size, encoder or self.encoder)

    def check_encoder(self, fingerprint: str, where: object) -> None:
        """Raises InputError for states that another encoder made."""
        if self.states and self.encoder and self.encoder != fingerprint:
            raise InputError(f"{where} was made by another text encoder; name a new file")

    def lookup(self, prompt: str) -> np.ndarray:
        """The states of `prompt`, zero-padded to float32 [text_length, text_dim]."""
        if prompt not in self.states:
            raise InputError(
                f"the prompt {prompt!r} is not in the cache; encode it with python -m "
                "convert.encode_prompts" + self._known()
            )
        states = self.states[prompt]
        padded = np.zeros((self.text_length, self.text_dim), np.float32)
        padded[: len(states)] = states
        return padded

    def _known(self) -> str:
        known = ", ".join(repr(known) for known in sorted(self.states)[:5])
        return f", or use one of: {known}" if known else "; the cache is empty"

    def save(self, path: Path) -> None:
        """Writes the cache; the caller renames into place."""
        prompts = sorted(self.states)
        tensors = {
            str(i): np.ascontiguousarray(self.states[p], np.float32) for i, p in enumerate(prompts)
        }
        # One entry: the library writes several in any order, and a file is to be reproducible.
        says = {"prompts": prompts, "encoder": self.encoder} if self.encoder else prompts
        save_file(tensors, path, metadata={"prompts": json.dumps(says)})
        path.chmod(0o644)  # safetensors leaves it to its owner alone

    @classmethod
    def load(cls, path: Path, text_length: int, text_dim: int) -> "PromptCache":
        """Reads what `save` wrote; raises InputError for anything else."""
        try:
            with safe_open(path, "np") as file:
                says = json.loads((file.metadata() or {})["prompts"])
                says = says if isinstance(says, dict) else {"prompts": says, "encoder": ""}
                prompts = says["prompts"]
                states = {p: file.get_tensor(str(i)) for i, p in enumerate(prompts)}
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise InputError(f"{path} is not a prompt cache: {error}") from error
        return cls(states, text_length, text_dim, says["encoder"])
