"""The three files of a report: report/report.{json,txt,png} of the run.

Does not know: what is reported. Invariant: who may only read the run gets the same result, and no files.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from grhpc.store.atomic import write_bytes, write_json
from grhpc.store.rundir import RunDir


def write(
    run: RunDir, result: dict[str, Any], draw: Callable[[Path], None], as_text: Callable[[dict[str, Any]], str]
) -> dict[str, Any]:
    """Write them; the result, which names the picture where there is one."""
    png = run.report_dir / "report.png"
    try:
        run.report_dir.mkdir(exist_ok=True)
        draw(png)
    except PermissionError:
        return result
    result["picture"] = str(png)
    write_json(run.report_dir / "report.json", result)
    write_bytes(run.report_dir / "report.txt", (as_text(result) + "\n").encode())
    return result
