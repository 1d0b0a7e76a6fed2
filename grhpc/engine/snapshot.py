"""Where a model's files stand on this machine: a folder as it is, a Hub id from the local cache or the Hub.

The libraries that are given a Hub id insist on the Hub: where nodes have no network vLLM does not start, whatever the
cache holds, and a tokenizer takes minutes of tries for each file that the model does not have.

Does not know: what is in the files. Invariant: nothing is asked of the Hub for a model that is a folder.
"""

from pathlib import Path

from huggingface_hub import snapshot_download

from grhpc.errors import DataError

_TEXTS = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py"]


def model_folder(model: str) -> Path:
    """The folder of a model given as a folder or a Hub id; offline the local cache answers. Raises DataError."""
    folder = _folder(model, ["*.safetensors", *_TEXTS])
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder} has no config.json", "name a folder with a Hugging Face model")
    return folder


def loadable(model: str) -> str:
    """What an engine is given for `model`: its folder; a Hub id as it is where it has weights in other files than
    safetensors, which only the engine knows. Raises DataError."""
    folder = model_folder(model)
    return str(folder) if any(folder.glob("*.safetensors")) else model


def tokenizer_folder(model: str) -> Path:
    """The folder of a model's files but its weights. Raises DataError."""
    return _folder(model, _TEXTS)


def _folder(model: str, patterns: list[str]) -> Path:
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except Exception as error:  # the Hub's client raises a dozen kinds; each means that the model is not to be had
        raise DataError(
            f"no model {model!r}: neither a folder nor to be had from the Hub ({type(error).__name__})",
            "download it where there is a network (`hf download ID`), with HF_HOME on a filesystem that jobs see",
        ) from None
