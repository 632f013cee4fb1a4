"""Layer-by-layer similarity of two models."""

from geodistill.layers.compare_layers import LayerMap, compare_layers

__all__ = ["LayerMap", "compare_layers"]
