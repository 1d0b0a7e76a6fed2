"""Configurations of evaluations over the fixtures: invented rows in each benchmark's true format."""

from pathlib import Path
from typing import Any

from grhpc.config import RunConfig
from grhpc.eval_config import EvalConfig, EvalDataConfig, SampleConfig

FIXTURES = Path(__file__).parent / "fixtures"
PLACES = {
    "mmlu-pro": "mmlu_pro.jsonl",
    "supergpqa": "supergpqa",
    "gpqa-diamond": "gpqa_diamond.csv",
    "theoremqa": "theoremqa.json",
    "bbeh": "bbeh",
    "math500": "math500.jsonl",
    "olympiadbench": "olympiadbench.jsonl",
    "minerva": "minerva.jsonl",
    "gsm8k": "gsm8k",
    "amc23": "amc23.jsonl",
    "aime24": "aime24.jsonl",
    "aime25": "aime25.jsonl",
}
SOURCES = {name: str(FIXTURES / place) for name, place in PLACES.items()}


def evaluation(
    *names: str,
    prepared: Path | str = "prepared",
    few_shot: int = 0,
    entries: dict[str, Any] | None = None,
    **data: Any,
) -> EvalConfig:
    """An evaluation of these benchmarks over the fixtures; `data` are further settings of that section."""
    sources = {name: place for name, place in SOURCES.items() if name in names} | data.pop("sources", {})
    return EvalConfig(
        run=RunConfig(name="e", dir="runs"),
        benchmarks=list(names),
        data=EvalDataConfig(prepared=str(prepared), sources=sources, **data),
        entries=entries or {},
        sample=SampleConfig(few_shot=few_shot),
    )
