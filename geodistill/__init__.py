"""geodistill: feature-geometry distillation."""

__version__ = "0.1.0"
