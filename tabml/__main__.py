"""``python -m tabml``."""

import sys

from tabml.cli import main

if __name__ == "__main__":
    sys.exit(main())
