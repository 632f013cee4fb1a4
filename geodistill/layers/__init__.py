"""Layer-by-layer similarity of two models."""
