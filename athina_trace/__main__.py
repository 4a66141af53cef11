"""`python -m athina_trace`: the command line."""

from __future__ import annotations

import sys

from athina_trace.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
