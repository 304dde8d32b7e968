"""``python -m robust_adapt``."""

import sys

from robust_adapt.cli import main

if __name__ == "__main__":
    sys.exit(main())
