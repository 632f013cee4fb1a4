"""Layer-by-layer similarity of two models, or of computed features."""

from geodistill.layers.compare_layers import compare_layers
from geodistill.layers.features import compare_features
from geodistill.layers.layer_map import LayerMap

__all__ = ["LayerMap", "compare_features", "compare_layers"]
