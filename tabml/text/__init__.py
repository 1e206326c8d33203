"""Text models; a later release fills this package."""
