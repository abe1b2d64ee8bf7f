#!/usr/bin/env python3
"""Entry point: lab/up, lab/ssh, ... are links to this file, and the name it is called by is the command."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from lab.cli import main  # noqa: E402 - the checkout has to be on the path first

sys.exit(main(Path(sys.argv[0]).name, sys.argv[1:]))
