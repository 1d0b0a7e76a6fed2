"""The command line without installing anything: `python submit.py --help`."""

import os
import sys
from pathlib import Path

from grhpc.cli import main

if __name__ == "__main__":
    here, others = str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{here}:{others}" if others else here  # for children, wherever this is called from
    sys.exit(main())
