"""Whether vLLM's sums depend on what else is in the batch, on this machine. Prints JSON.

    python tests/bench/bench_batch_invariance.py [--hidden 896] [--layers 4] [--dtype float32] [--threads 1]

A random Qwen3 of that shape answers 48 prompts of 5 to 257 tokens greedily, together; then the same again, and then
some of them in other company. `bits`: how many of those have the same tokens with the same log-probabilities to the bit
as at first; `tokens`: how many have the same tokens.
"""

import argparse
import json
import os
import random
import tempfile
from pathlib import Path

from beside_vllm import quiet

COMPANY = {
    "all again": range(48),
    "47 of them": range(47),
    "16 of them": range(16),
    "17, backwards": range(40, 23, -1),
    "5 of them": (2, 4, 11, 20, 31),
    "two": (1, 9),
}
ALONE = (0, 3, 7)


def make_model(folder: Path, args: argparse.Namespace) -> None:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=2048,
        hidden_size=args.hidden,
        intermediate_size=3 * args.hidden,
        num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // 64,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        initializer_range=0.05,
    )
    Qwen3ForCausalLM(config).to(getattr(torch, args.dtype)).save_pretrained(folder)


def measure(folder: Path, args: argparse.Namespace) -> dict:
    from vllm import LLM, SamplingParams

    make_model(folder, args)
    llm = LLM(
        model=str(folder),
        skip_tokenizer_init=True,
        dtype=args.dtype,
        max_model_len=1024,
        max_num_seqs=64,
        kv_cache_memory_bytes=512 << 20,
        enforce_eager=True,
        enable_prefix_caching=False,
        enable_chunked_prefill=False,
    )
    rng = random.Random(1)
    prompts = [[rng.randrange(3, 2000) for _ in range(rng.choice([5, 17, 33, 64, 120, 257]))] for _ in range(48)]

    def answers(places) -> list[tuple[list[int], list[float]]]:
        shared = {"temperature": 0.0, "logprobs": 0, "ignore_eos": True, "detokenize": False}
        params = [SamplingParams(max_tokens=96 if place % 5 else 24, **shared) for place in places]
        done = llm.generate([{"prompt_token_ids": prompts[place]} for place in places], params, use_tqdm=False)
        outputs = [request.outputs[0] for request in done]
        return [(list(o.token_ids), [next(iter(step.values())).logprob for step in o.logprobs]) for o in outputs]

    first = answers(range(48))

    def alike(groups) -> dict[str, int]:
        pairs = [(found, first[p]) for places in groups for p, found in zip(places, answers(places), strict=True)]
        same = {"of": len(pairs), "bits": sum(found == before for found, before in pairs)}
        return same | {"tokens": sum(found[0] == before[0] for found, before in pairs)}

    told = {name: alike([places]) for name, places in COMPANY.items()}
    return {**vars(args), **told, "each alone": alike([[place] for place in ALONE])}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("hidden", 896), ("layers", 4), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args()
    quiet()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), args)))


if __name__ == "__main__":
    main()
