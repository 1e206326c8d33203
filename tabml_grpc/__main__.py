"""``python -m tabml_grpc``: says that the server is not in this release."""

import sys


def main() -> int:
    """Say so, and fail."""
    print("tabml_grpc: the server comes with a later release; this one has tabml.vision", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
