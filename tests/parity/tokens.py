"""The tokenizer against transformers' own reading of the same file, behind diffusers' cleaning."""

import json
import string
import tempfile
from pathlib import Path

import numpy as np
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from tokenizers import Tokenizer as Model
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from realisvsr_jax.text.tokenizer import Tokenizer
from tests.parity.peers import Row

LENGTH = 24
SPECIAL = ["<pad>", "</s>", "<s>", "<unk>"]
WORDS = ["▁a", "▁the", "▁sharp", "▁video", "▁cat", "▁film", "ing", "er", "电影", "质感", "é", "'s"]
PROMPTS = (
    "",
    " ",
    "\n\t\r\n",
    "a sharp video",
    "  a\tsharp\u00a0video\u3000of  a cat ",
    "line one\nline two\r\nline three",
    "the cafÃ©â€™s film",
    "salt &amp;amp;amp; pepper &lt;b&gt; &nbsp; &#39;",
    "<i>salt &amp;amp; pepper</i>",
    "“quoted” — ‘single’ … dash–dash",
    "ﬁlm grain, Ｗｉｄｅ, ①②, ½, ™",
    "电影 质感，高清晰",
    "e\u0301 and é, n\u0303 and ñ",
    "👩‍👩‍👧 🇩🇪 ❤️",
    "مرحبا שלום",
    "zero\u200bwidth\u200djoiner\ufeff and soft\u00adhyphen",
    "bell\u0007 escape\u001b[31m next\u0085line unit\u001fseparator",
    "</s> a cat <pad> <unk> <extra_id_0>",
    "▁a ▁▁ cat_and_under_scores",
    "CASE Stays, 3.14159, 1,000,000, C:\\path",
    "a cat " * 40,
    "x" * 200,
)


def write(folder: Path) -> None:
    """A folder like UMT5's: Unigram with bytes for what it lacks, ending in `</s>`."""
    scores = {
        **dict.fromkeys(SPECIAL, 0.0),
        **{f"<0x{byte:02X}>": -12.0 for byte in range(256)},
        **dict.fromkeys(("▁", *string.ascii_letters, *string.digits, *string.punctuation), -6.0),
        **dict.fromkeys(WORDS, -2.0),
    }
    model = Model(models.Unigram(list(scores.items()), SPECIAL.index("<unk>"), True))
    model.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace("  ", " ")]
    )
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    model.decoder = decoders.Metaspace()
    model.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    model.add_special_tokens(SPECIAL)
    model.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "T5Tokenizer", "pad_token": "<pad>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def tokens() -> list[Row]:
    """Prompts whose tokens or mask differ in any place."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name))
        found = np.stack(Tokenizer(name)(list(PROMPTS), LENGTH))
        file = str(Path(name) / "tokenizer.json")
        theirs = PreTrainedTokenizerFast(tokenizer_file=file, pad_token="<pad>")
    expected = theirs(
        [prompt_clean(prompt) for prompt in PROMPTS],
        padding="max_length",
        truncation=True,
        max_length=LENGTH,
        return_tensors="np",
    )
    same = found == np.stack([expected["input_ids"], expected["attention_mask"]])
    wrong = len(PROMPTS) - int(same.all(axis=(0, 2)).sum())
    shape = f"{len(PROMPTS)} prompts, {LENGTH} tokens"
    return [Row("tokenizer, prompts that differ", "transformers, diffusers", shape, wrong, 0)]
