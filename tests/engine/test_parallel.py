"""An engine over several processes, as on GPUs: exact, updated in place, and not killed by SLURM's warning."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from parallel_engine import REQUESTS
from random_models import reference_logprobs

PROGRAM = Path(__file__).with_name("parallel_engine.py")


@pytest.mark.timeout(1200)
def test_tensor_parallel_engine(models, short_tmp):
    done = subprocess.run(
        [sys.executable, PROGRAM, models.tied_a, models.tied_b],
        capture_output=True,
        text=True,
        timeout=1100,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    for key, model in (("first", models.tied_a), ("second", models.tied_b)):
        for request, group in zip(REQUESTS, told[key], strict=True):
            for token_ids, logprobs in group:
                wanted = reference_logprobs(model, request.prompt_ids, token_ids, request.temperature)
                assert logprobs == pytest.approx(wanted, abs=1e-4), f"{key} is not from {model.name}"
    assert {Path(path).parent.name[:11] for path in told["sockets"]} == {"grhpc-vllm-"}
    assert [path for path in short_tmp.rglob("*") if path.is_socket()] == [], "a node's /tmp would fill with them"
    assert told["stopped"], "the warning must end the generation, not the engine"
    assert told["third"] == told["second"]
