"""``python -m convbench``: the command line."""

import sys

from convbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
