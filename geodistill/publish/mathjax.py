"""Sphinx extension: MathJax from this book's own folder, as SVG.

The offline package asks for the output with web fonts, which some browsers refuse where a book is
opened as a file; SVG needs no fonts. (Its `setup` overwrites `mathjax_path`, so we set it after.)
"""

from typing import Any


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.setup_extension("sphinx-mathjax-offline")
    app.config.mathjax_path = "mathjax/tex-svg.js"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
