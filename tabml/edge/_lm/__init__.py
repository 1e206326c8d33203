"""LiteRT-LM behind one door: :mod:`tabml.edge.lm` imports it when a model is opened."""
