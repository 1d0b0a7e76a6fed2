"""The kinds of runs there are, by the names that run.json gives them.

Does not know: what any of them does. Invariant: a kind's name never changes: run directories hold it.
"""

from grhpc.config import Config
from grhpc.eval_config import EvalConfig
from grhpc.sft_config import SftConfig

Training = Config | SftConfig  # what has a trainer
Settings = Training | EvalConfig
KINDS: dict[str, type[Settings]] = {"grpo": Config, "sft": SftConfig, "eval": EvalConfig}
