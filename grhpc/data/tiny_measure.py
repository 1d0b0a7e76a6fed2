"""Measures the tiny models with the strict oracle: how able the policy is, how good the verifier's decisions are.

Greedy and sampled generation run on transformers, apart from the engines of a run: a second opinion on both models.

Does not know: the run, training. Invariant: all questions are held out; the same seed gives the same figures.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3ForCausalLM

from grhpc.answer.extract import extract_answer
from grhpc.answer.judge import load_template, read_decision, render
from grhpc.data.tiny import draw_task, rows
from grhpc.data.tiny_lessons import DOMAINS, Pair, honest_pair, hostile_pair, read_task

PairMaker = Callable[..., Pair]


class Model:
    """A model folder, ready to continue token ids."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.padding_side = "left"
        self.network = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def complete(self, prompts: Sequence[str], *, num_tokens: int, samples: int = 0, batch: int = 128) -> list[str]:
        """The text after each prompt: greedy, or `samples` texts a prompt at temperature 1, one after the other."""
        texts: list[str] = []
        how: dict[str, Any] = {"do_sample": False}
        if samples:
            how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "num_return_sequences": samples}
        for start in range(0, len(prompts), batch):
            inputs = self.tokenizer(list(prompts[start : start + batch]), return_tensors="pt", padding=True)
            with torch.inference_mode():
                output = self.network.generate(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    max_new_tokens=num_tokens,
                    **how,
                )
            texts += self.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return texts


def heldout_pairs(num_per_domain: int, seed: int, make: PairMaker = honest_pair) -> list[Pair]:
    """Pairs on held-out questions, the same number of every domain."""
    rng = random.Random(seed)
    return [make(draw_task(rng, domain, train=False), rng) for domain in DOMAINS for _ in range(num_per_domain)]


def judge_pairs(verifier: Model, pairs: Sequence[Pair]) -> list[bool]:
    """Whether the verifier accepts each pair; no decision is no acceptance."""
    template = load_template(str(verifier.folder / "template.txt"))
    prompts = [render(template, p.task.question, p.reference, p.answer) for p in pairs]
    return [read_decision(text) == "yes" for text in verifier.complete(prompts, num_tokens=40)]


def precision_recall(accepted: Sequence[bool], right: Sequence[bool]) -> tuple[float, float]:
    """Precision and recall of acceptance; 1.0 where there is nothing to be precise about, or to recall."""
    both = sum(a and r for a, r in zip(accepted, right, strict=True))
    return both / sum(accepted) if any(accepted) else 1.0, both / sum(right) if any(right) else 1.0


def measure_verifier(folder: Path, *, num_per_domain: int = 250, seed: int = 1) -> dict[str, Any]:
    """Precision and recall on honest pairs, in all and by domain; the share of hostile texts wrongly accepted."""
    verifier = Model(folder)
    pairs = heldout_pairs(num_per_domain, seed)
    accepted, right = judge_pairs(verifier, pairs), [pair.equivalent for pair in pairs]
    precision, recall = precision_recall(accepted, right)
    domains = {}
    for number, domain in enumerate(DOMAINS):
        of = slice(number * num_per_domain, (number + 1) * num_per_domain)
        domains[domain.name] = [round(x, 4) for x in precision_recall(accepted[of], right[of])]
    hostile = heldout_pairs(num_per_domain, seed + 1, hostile_pair)
    fooled = [a and not p.equivalent for a, p in zip(judge_pairs(verifier, hostile), hostile, strict=True)]
    return {
        "pairs": len(pairs),
        "precision": round(precision, 4),
        "recall": round(recall, 4),
        "precision_recall_by_domain": domains,
        "hostile_accepted": round(sum(fooled) / sum(not p.equivalent for p in hostile), 4),
    }


def measure_policy(folder: Path, *, num: int = 320, samples: int = 8, seed: int = 0) -> dict[str, Any]:
    """Greedy accuracy by domain, accuracy of one sample, and of the best of `samples`, on held-out questions."""
    policy = Model(folder)
    questions = [row["question"] for row in rows("heldout", num, seed)]
    prompts = [
        policy.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        for question in questions
    ]
    greedy = [_is_right(q, t) for q, t in zip(questions, policy.complete(prompts, num_tokens=48), strict=True)]
    torch.manual_seed(seed)
    texts = policy.complete(prompts, num_tokens=48, samples=samples, batch=32)
    sampled = [
        [_is_right(question, text) for text in texts[i * samples : (i + 1) * samples]]
        for i, question in enumerate(questions)
    ]
    return {
        "questions": num,
        "greedy": round(sum(greedy) / num, 4),
        "greedy_by_domain": _by_domain(questions, greedy),
        "sampled": round(sum(map(sum, sampled)) / (num * samples), 4),
        "sampled_by_domain": _by_domain(questions, [sum(s) / samples for s in sampled]),
        f"best_of_{samples}": round(sum(map(any, sampled)) / num, 4),
    }


def _by_domain(questions: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """The mean value of each domain's questions."""
    named = [(task.domain.name, value) for q, value in zip(questions, values, strict=True) if (task := read_task(q))]
    of = {domain.name: [value for name, value in named if name == domain.name] for domain in DOMAINS}
    return {name: round(sum(found) / max(1, len(found)), 4) for name, found in of.items()}


def _is_right(question: str, response: str) -> bool:
    answer, task = extract_answer(response), read_task(question)
    return answer is not None and task is not None and task.right(answer)


MEASURES = {"policy": measure_policy, "verifier": measure_verifier}
