"""Rollouts to judge, a run directory to judge them in, and judges that answer as told."""

from pathlib import Path

from grhpc.config import (
    Config,
    DataConfig,
    EngineConfig,
    ModelConfig,
    RunConfig,
    StoreConfig,
    TrainConfig,
    VerifierConfig,
    VerifyConfig,
)
from grhpc.engine.vllm import Completion
from grhpc.records import TRAIN, Rollout
from grhpc.store.rundir import RunDir

TEMPLATE = "Question: {question}\nReference: {reference}\nStudent: {answer}\nReason:"


def rollout(group: int = 0, sample: int = 0, *, response: str = "\\boxed{5}", **changes) -> Rollout:
    fields = {
        "prompt_id": f"p{group}",
        "question": f"What is number {group}?",
        "answer": "5",
        "answer_type": "Integer",
        "category": "Mathematics",
        "difficulty": "University",
        "token_ids": [1, 2, 3],
        "group": group,
        "kind": TRAIN,
        "epoch": 0,
        "admitted_version": 0,
        "sample": sample,
        "response_ids": [7, 8],
        "sampler_logprobs": [-0.5, -0.25],
        "response": response,
        "finish_reason": "stop",
        "weight_version": 0,
        "seed": sample,
    }
    return Rollout(**(fields | changes))


def make_run(folder: Path, verifier: Path, *, mode: str = "generative", room: int = 256, **store) -> RunDir:
    """`room` is how many questions the judge is busy with; a task takes no further shard beside so many."""
    template = folder / "template.txt"
    template.write_text(TEMPLATE)
    config = Config(
        run=RunConfig(name="r", dir=str(folder)),
        policy=ModelConfig(str(verifier), "float32"),
        verifier=VerifierConfig(str(verifier), "float32", str(template), max_new_tokens=40, max_input_tokens=200),
        verify=VerifyConfig(mode=mode, engine=EngineConfig(max_num_seqs=room)),
        data=DataConfig(prepared=str(folder / "prepared")),
        train=TrainConfig(steps=1),
        store=StoreConfig(**({"poll_min_s": 0.01, "poll_max_s": 0.05, "idle_s": 1.0, "max_attempts": 2} | store)),
    )
    return RunDir.create(folder / "r", config)


class Host:
    """In the place of an engine host: answers each question with `answer(prompt text, attempt at it)`."""

    running = True
    engine = None

    def __init__(self, tokenizer, answer) -> None:
        self.tokenizer, self.answer = tokenizer, answer
        self.asked: list[str] = []
        self.temperatures: list[float] = []
        self.closed = 0

    def generate(self, requests, should_stop):
        if should_stop():
            return None
        return [[self._complete(request)] for request in requests]

    def _complete(self, request) -> Completion:
        prompt = self.tokenizer.decode(request.prompt_ids)
        text = self.answer(prompt, self.asked.count(prompt) + 1)
        self.asked.append(prompt)
        self.temperatures.append(request.temperature)
        end = "length" if text.endswith("~") else "stop"
        return Completion([5], [-0.1], text.rstrip("~"), end)

    def close(self):
        self.closed += 1


def yes(prompt: str, attempt: int) -> str:
    return " The same. Final Decision: Yes"
