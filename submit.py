"""The command line without installing anything: `python submit.py --help`."""

import sys

from grhpc.cli import main

if __name__ == "__main__":
    sys.exit(main())
