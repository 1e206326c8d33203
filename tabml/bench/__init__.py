"""Measurements against the libraries that tabml stands on, in turns of one run: ``tabml bench``."""

from tabml.bench.rows import Row

__all__ = ["Row"]
