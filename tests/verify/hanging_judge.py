"""A verify task whose engine answers `questions` questions and then hangs; run as: hanging_judge.py RUN QUESTIONS."""

import sys
import threading
from pathlib import Path

from random_models import byte_tokenizer
from verify_rows import Host, yes

from grhpc.engine.host import EngineHost
from grhpc.judge import make
from grhpc.judge.engine_judge import EngineJudge
from grhpc.lifetime import Lifetime
from grhpc.store.rundir import RunDir
from grhpc.store.serving import serve
from grhpc.verify.worker import VerifyWorker

STALL_S = 3.0  # what answers takes no time, also on a busy machine


class Engine(Host):
    closed = False

    def __init__(self, questions: int) -> None:
        super().__init__(byte_tokenizer(), yes)
        self.questions = questions

    def generate(self, requests, should_stop):
        if len(self.asked) + len(requests) > self.questions:
            threading.Event().wait()
        return super().generate(requests, should_stop)


def main(run_dir: str, questions: str) -> None:
    run, job = RunDir.open(Path(run_dir)), "7_1"
    config, events, life = run.config(), run.events("verify", job), Lifetime(job=job)

    def hanging(config, tokenizer, on_stall, confidence) -> EngineJudge:
        host = EngineHost(lambda: Engine(int(questions)), STALL_S, on_stall)
        return EngineJudge(host, byte_tokenizer(), config.verifier, 0, "m")

    make.make_judge = hanging
    worker = VerifyWorker(run, config, life, events)
    serve(run, "rollouts", worker, life, events)


if __name__ == "__main__":
    main(*sys.argv[1:])
