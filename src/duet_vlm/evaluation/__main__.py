"""`python -m duet_vlm.evaluation ...` is `duet eval ...`, for launchers that start modules."""

import sys

from ..cli.main import app

app(["eval", *sys.argv[1:]])
