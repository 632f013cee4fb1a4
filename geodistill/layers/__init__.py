"""Layer-by-layer similarity of two models, or of features at hand."""

from geodistill.layers.compare_layers import LayerMap, compare_layers
from geodistill.layers.features import compare_features

__all__ = ["LayerMap", "compare_features", "compare_layers"]
