"""The block at the top of docs/verifier.md: every line is a verb with settings that there are, and each goes on with
what the one before it made."""

import re
import shlex
from pathlib import Path

from grhpc.cli import build_parser
from grhpc.config import Config
from grhpc.config_file import load_any
from grhpc.sft_config import SftConfig

ROOT = Path(__file__).parents[2]


def test_from_answers_to_a_run_that_ones_own_verifier_judges(monkeypatch):
    monkeypatch.chdir(ROOT)
    block = re.findall(r"```\n(.*?)```", (ROOT / "docs" / "verifier.md").read_text(), re.DOTALL)[0]
    lines = [line for line in block.replace("\\\n", "").splitlines() if not line.startswith("#")]
    words = [shlex.split(line) for line in lines]
    assert all(of[:2] == ["python", "submit.py"] for of in words)
    evaluate, make, sft, measure, start = (build_parser().parse_args(of[2:]) for of in words)
    configs = [load_any(args.config, args.overrides) for args in (evaluate, make, sft, measure, start)]
    asked, _, taught, measured, judged = configs
    assert make.solutions == [str(asked.run_dir / "samples.parquet")]
    assert isinstance(taught, SftConfig) and isinstance(measured, Config) and isinstance(judged, Config)
    assert taught.data.source == make.out
    assert taught.data.heldout_source == str(Path(make.out).with_stem(Path(make.out).stem + "-heldout"))
    for config in (measured, judged):
        assert config.verifier.model == str(taught.run_dir / "model")
        assert config.verifier.template == str(taught.run_dir / "model" / "template.txt")
