import pytest
from random_models import byte_tokenizer


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory):
    """A folder with one token a byte: what a verifier's tokenizer is needed for when its model is not."""
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer()
