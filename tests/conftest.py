"""What every test needs: no network, quiet libraries, few threads, the same examples."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent.parent

# Before any test imports a library that reads them.
os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples every time, on every machine. To look for new ones: HYPOTHESIS_PROFILE=search
# How long an example takes says more of the machine than of us.
untimed = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, **untimed)
settings.register_profile("search", max_examples=2000, **untimed)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory):
    """A folder with one token a byte: what a verifier's tokenizer is needed for when its model is not."""
    from random_models import byte_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory):
    """The address of a real `vllm serve`; see vllm_server.py."""
    from vllm_server import serving

    with serving(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="session")
def tokenizer():
    from random_models import byte_tokenizer

    return byte_tokenizer()
