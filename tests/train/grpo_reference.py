"""GRPO written a second time, straight from its formulas, on transformers and torch.optim.AdamW.

One sequence at a time, whole softmax, no padding, no shards: slow and plain, to hold the trainer against.
"""

from pathlib import Path

import numpy as np
import torch
import transformers

from grhpc.config import Config
from grhpc.grpo.batch import Batch


def load(folder: Path) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def token_logprobs(model: transformers.PreTrainedModel, batch: Batch, i: int, temperature: float):
    """(log-probability, entropy) of each response token of rollout i."""
    ids = torch.from_numpy(batch.token_ids[i])
    logits = model(ids[None]).logits[0, :-1] / temperature
    everything = torch.log_softmax(logits, -1)[int(batch.prompt_lengths[i]) - 1 :]
    taken = ids[int(batch.prompt_lengths[i]) :]
    return everything.gather(-1, taken[:, None])[:, 0], -(everything.exp() * everything).sum(-1)


def all_logprobs(model: transformers.PreTrainedModel, batch: Batch, temperature: float) -> list[np.ndarray]:
    with torch.no_grad():
        return [token_logprobs(model, batch, i, temperature)[0].numpy() for i in range(len(batch))]


def train(folder: Path, batches: list[Batch], config: Config):
    """Steps 1, 2, ... over the batches. Returns the model and one dict of loss, grad_norm, kl, entropy a step."""
    model, initial = load(folder), load(folder)
    settings, train = config.grpo, config.train
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": train.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=train.lr, betas=(train.adam_beta1, train.adam_beta2), eps=train.adam_eps)
    figures = []
    for number, batch in enumerate(batches, start=1):
        for group in adam.param_groups:
            group["lr"] = train.lr * min(1.0, number / max(1, train.warmup_steps))
        old = all_logprobs(model, batch, config.rollout.temperature)
        reference = all_logprobs(initial, batch, config.rollout.temperature)
        norms, sums, tokens = [], np.zeros(3), 0
        numbers = sorted({int(g) for g in batch.groups})
        for part in np.array_split(np.asarray(numbers), settings.updates_per_step):
            rows = [i for i in range(len(batch)) if int(batch.groups[i]) in set(part.tolist())]
            count = sum(len(batch.sampler_logprobs[i]) for i in rows)
            loss = torch.zeros(())
            for i in rows:
                new, entropy = token_logprobs(model, batch, i, config.rollout.temperature)
                before, start = torch.from_numpy(old[i]), torch.from_numpy(reference[i])
                total, kl = _loss(new, entropy, before, start, batch, i, settings)
                loss = loss + total / count
                sums += [float(total.detach()), float(kl.detach().sum()), float(entropy.detach().sum())]
            adam.zero_grad()
            loss.backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), train.grad_clip)))
            adam.step()
            tokens += count
        figures.append(
            {
                "loss": sums[0] / tokens,
                "kl": sums[1] / tokens,
                "entropy": sums[2] / tokens,
                "grad_norm": float(np.mean(norms)),
            }
        )
    return model, figures


def _loss(new, entropy, old, start, batch, i, settings):
    advantage = float(batch.advantages[i])
    sampler = torch.from_numpy(batch.sampler_logprobs[i])
    ratio = torch.exp(new - old)
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high) * advantage)
    if advantage < 0:
        surrogate = torch.maximum(surrogate, torch.full_like(surrogate, settings.dual_clip * advantage))
    weight = torch.exp(old - sampler).clamp(max=settings.importance_cap)
    kl = torch.exp(start - new) - (start - new) - 1
    kl = kl.clamp(-10, 10)
    return (-weight * surrogate + settings.kl_coef * kl - settings.entropy_coef * entropy).sum(), kl
