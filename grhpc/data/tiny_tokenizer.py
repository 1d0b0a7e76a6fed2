"""The tiny world's tokenizer: every word, small number and fraction of its texts is one token, all else single bytes.

Whole words make the tiny models able: what they must learn about `0.45` or `centimeters` is one row of a table. Bytes
keep the tokenizer total: any text can be written and comes back as it was.

Does not know: models, training. Invariant: `decode(encode(text)) == text`; the same corpus gives the same tokenizer.
"""

import collections
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, END, USER, ASSISTANT = SPECIAL = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|> ' + message['content'] | trim }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
PIECES = r" ?\\boxed\{| ?\d{1,3}/\d{1,3}| ?\d{1,3}\.\d{1,3}| ?\d{1,3}%| ?\d{1,3}| ?\p{L}+| ?[^\s\p{L}\d]|\s"
SIZE_STEP = 128  # the vocabulary is filled up to a multiple, as Megatron-Core pads it


def build_tokenizer(corpus: Iterable[str], *, at_least: int) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer whose whole pieces are those that the corpus holds `at_least` that many times."""
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    count = collections.Counter(piece for text in corpus for piece, _ in split.pre_tokenize_str(text))
    symbols = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    symbols += sorted(piece for piece, times in count.items() if times >= at_least and len(piece) > 1)
    symbols += [f"<|spare{i}|>" for i in range(-len(symbols) % SIZE_STEP)]
    core = Tokenizer(models.BPE({s: i for i, s in enumerate(symbols)}, [], ignore_merges=True))
    core.pre_tokenizer = split
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, eos_token=END, additional_special_tokens=[USER, ASSISTANT]
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the tokenizer's files into a model's folder."""
    tokenizer.save_pretrained(str(folder))
