"""Prompts to tokens: cleaned as Wan cleans them, then cut by UMT5's tokenizer.

Source: Wan2.1 tokenizers.py. The tokenizer is read from a folder, never from the network.
"""

import html
from pathlib import Path

import ftfy
import numpy as np
from jaxtyping import Int32

from realisvsr_jax.errors import InputError


def clean(prompt: str) -> str:
    """Mends broken characters, resolves HTML entities twice over, and collapses white space."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(prompt))).split())


class Tokenizer:
    """UMT5's tokenizer from a checkpoint's folder."""

    def __init__(self, folder: str | Path):
        """Raises InputError for a folder without a tokenizer, or with one that cannot be read."""
        # Here, since importing it takes longer than most that is done without it.
        from transformers import AutoTokenizer
        from transformers import UMT5Config as TransformersConfig

        folder = Path(folder)
        if not (folder / "tokenizer.json").is_file():
            raise InputError(
                f"{folder} has no tokenizer.json; give the tokenizer's folder of a Wan "
                "checkpoint, google/umt5-xxl or tokenizer"
            )
        try:
            # Without the model's type, transformers 5 takes the class from the folder's
            # configuration, T5Tokenizer, which rebuilds tokenizer.json by T5's conventions;
            # with it, the file is used as it stands.
            self.tokenizer = AutoTokenizer.from_pretrained(
                folder,
                config=TransformersConfig(),
                local_files_only=True,
                trust_remote_code=False,
            )
        except Exception as error:  # the tokenizers library raises nothing narrower
            reason = " ".join(str(error).split())
            raise InputError(f"the tokenizer in {folder} cannot be read: {reason}") from error
        if self.tokenizer.pad_token_id is None:
            raise InputError(
                f"the tokenizer in {folder} names no padding token; copy the checkpoint's "
                "tokenizer_config.json beside its tokenizer.json"
            )

    def __call__(
        self, prompts: list[str], length: int = 512
    ) -> tuple[Int32[np.ndarray, "b {length}"], Int32[np.ndarray, "b {length}"]]:
        """Tokens of the cleaned prompts, and a mask that is 1 for tokens and 0 for padding.

        Each prompt ends in the end token, also where it is cut; padding is on the right.
        """
        encoded = self.tokenizer(
            [clean(prompt) for prompt in prompts],
            padding="max_length",
            padding_side="right",
            truncation=True,
            max_length=length,
            return_attention_mask=True,
            return_tensors="np",
        )
        return encoded["input_ids"].astype(np.int32), encoded["attention_mask"].astype(np.int32)
