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
            problem = _misfit(value.shape, text_length, text_dim)
            if problem:
                raise InputError(f"the text states of {prompt!r} have {problem}")
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
        if not path.is_file():
            what = "it is a folder" if path.is_dir() else "there is no such file"
            raise InputError(f"{path} is not a prompt cache: {what}")
        try:
            with safe_open(path, "np") as file:
                says = json.loads((file.metadata() or {})["prompts"])
                says = says if isinstance(says, dict) else {"prompts": says, "encoder": ""}
                prompts, encoder = says["prompts"], says["encoder"]
                states = {p: file.get_tensor(str(i)) for i, p in enumerate(prompts)}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} is not a prompt cache: it has no list of prompts; name a file that "
                "convert.encode_prompts wrote, or a new one for it to write"
            ) from error
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} is not a prompt cache, or is damaged: {error}") from error
        try:
            return cls(states, text_length, text_dim, encoder)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


def _misfit(shape: tuple[int, ...], text_length: int, text_dim: int) -> str:
    """What makes states unfit for a model, '' where nothing does."""
    if len(shape) != 2:
        return f"{len(shape)} axes, not 2"
    if shape[1] != text_dim:
        return (
            f"a width of {shape[1]}, the model takes {text_dim} (text_dim): another text encoder "
            "made them; encode the prompts with the model's own"
        )
    if shape[0] > text_length:
        return (
            f"{shape[0]} tokens, the model takes at most {text_length} (text_length); encode the "
            f"prompts with --text_length {text_length}"
        )
    return ""
