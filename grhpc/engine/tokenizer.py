"""A model's tokenizer, loaded in the one way that the engine and `prepare` also use.

Does not know: templates. Invariant: nothing is downloaded for a model that is a folder.
"""

from typing import Any

from grhpc.engine.snapshot import tokenizer_folder
from grhpc.errors import DataError


def load_tokenizer(model: str) -> Any:
    """The transformers tokenizer of a folder or Hub id. Raises DataError where there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(tokenizer_folder(model))
    except (OSError, ValueError) as error:
        problem = f"{model} has no tokenizer that can be loaded: {error}"
        raise DataError(problem, "name a model folder with tokenizer.json, or a Hub id") from None


def num_tokens(tokenizer: Any, texts: list[str]) -> list[int]:
    """How many tokens each text has by itself, special tokens not counted."""
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []
