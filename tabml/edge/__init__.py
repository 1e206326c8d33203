"""LiteRT models and on-device language models; a later release fills this package."""
