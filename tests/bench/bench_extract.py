"""How long the extractor takes on a megabyte of hostile text. Prints JSON: milliseconds of CPU time by kind of text.

python tests/bench/bench_extract.py
"""

import json
import time

from grhpc.answer.extract import extract_answer

TEXTS = {
    "opening braces": "{" * 10**6,
    "box of opening braces": "\\boxed" + "{" * 10**6,
    "balanced braces": "\\boxed" + "{" * 500_000 + "}" * 500_000,
    "boxes never closed": "\\boxed{" * 140_000,
    "boxes in boxes": "\\boxed{" * 120_000 + "}" * 120_000,
    "escaped braces": "\\boxed{" + "\\{" * 500_000,
    "boxes never closed, a brace": "\\boxed{" * 140_000 + "}",
    "end tokens": "answer: 5" + "</s>" * 250_000,
    "markers": "answer:" * 140_000,
    "markers in prose": "the answer is so " * 60_000,
    "words": "so we see that it is so " * 42_000 + "\\boxed{1}",
}


def measure(text: str) -> float:
    times = []
    for _ in range(5):
        begun_s = time.process_time()
        extract_answer(text)
        times.append(time.process_time() - begun_s)
    return round(1000 * min(times), 2)


if __name__ == "__main__":
    print(json.dumps({"ms": {name: measure(text) for name, text in TEXTS.items()}}))
