"""The evaluations of a run's weight versions, in their order: what they were asked, by benchmark.

Does not know: how a run trained. Invariant: an evaluation that is not finished, or not readable, is left out and named.
"""

from dataclasses import dataclass, field
from typing import Any

from grhpc.errors import GrhpcError
from grhpc.evaluate.table import aligned, with_error
from grhpc.report.evaluation import gather
from grhpc.report.picture import Curve
from grhpc.report.text import one_line
from grhpc.store.rundir import RunDir

MEAN = "mean"


@dataclass
class Versions:
    """One evaluation: its figures by version and benchmark (MEAN is that of all), and the versions without any."""

    figures: dict[int, dict[str, dict[str, Any]]] = field(default_factory=dict)
    missing: dict[int, str] = field(default_factory=dict)

    @property
    def benchmarks(self) -> list[str]:
        return list(dict.fromkeys(name for of in self.figures.values() for name in of))

    def curves(self) -> list[Curve]:
        """A curve for each benchmark, with its intervals."""
        found = []
        for name in self.benchmarks:
            known = {v: of[name] for v, of in self.figures.items() if name in of}
            spread = {v: (f["interval"][0], f["interval"][1]) for v, f in known.items() if f["interval"]}
            found.append(Curve(one_line(name, 30), {v: f["value"] for v, f in known.items()}, spread))
        return found


def read_versions(run: RunDir) -> dict[str, Versions]:
    """Every evaluation that stands in the run, by name."""
    found: dict[str, Versions] = {}
    for name, version in run.evaluations():
        of = found.setdefault(name, Versions())
        try:
            result = gather(RunDir.open(run.evaluation_dir(name, version)))
        except GrhpcError as error:
            of.missing[version] = error.problem
            continue
        figures = {b: {k: part[k] for k in ("value", "se", "interval")} for b, part in result["benchmarks"].items()}
        if len(figures) > 1:
            figures[MEAN] = {key: result["average"][key] for key in ("value", "se", "interval")}
        of.figures[version] = figures
    return found


def main_curves(found: dict[str, Any]) -> list[Curve]:
    """One curve an evaluation, from the JSON form: of its mean, or of its only benchmark."""
    curves = []
    for name, of in found.items():
        by_version = {int(v): figures.get(MEAN) or next(iter(figures.values())) for v, figures in of["figures"].items()}
        curves.append(Curve(one_line(name, 30), {v: figure["value"] for v, figure in by_version.items()}))
    return curves


def lines(found: dict[str, Any]) -> list[str]:
    """The tables for people, from the JSON form: evaluation -> {"figures": version -> benchmark, "missing"}."""
    text = []
    for name, of in found.items():
        by_version = of["figures"]
        benchmarks = list(dict.fromkeys(b for figures in by_version.values() for b in figures))
        rows = [("version", *(one_line(b, 24) for b in benchmarks))]
        for version in sorted(by_version, key=int):
            cells = (with_error(by_version[version][b]) if b in by_version[version] else "–" for b in benchmarks)
            rows.append((str(version), *cells))
        text += ["", f"evaluation {one_line(name, 60)}, score ± SE:", *(aligned(rows) if benchmarks else [])]
        text += [f"version {v}: {one_line(why, 160)}" for v, why in of["missing"].items()]
    return text
