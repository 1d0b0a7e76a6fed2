"""Where a model's files stand on this machine: a folder as it is, a Hub id from the local cache or the Hub.

Does not know: what is in the files. Invariant: the folder that is returned has a config.json.
"""

from pathlib import Path

from huggingface_hub import snapshot_download

from grhpc.errors import DataError

_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


def model_folder(model: str) -> Path:
    """The folder of a model given as a folder or a Hub id; offline the local cache answers. Raises DataError."""
    folder = Path(model)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(model, allow_patterns=_PATTERNS))
        except Exception as error:  # the Hub's client raises a dozen kinds; each means that the model is not to be had
            raise DataError(
                f"no model {model!r}: neither a folder nor to be had from the Hub ({type(error).__name__})",
                "download it where there is a network (`hf download ID`), with HF_HOME on a filesystem that jobs see",
            ) from None
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder} has no config.json", "name a folder with a Hugging Face model")
    return folder
