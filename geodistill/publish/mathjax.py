"""Sphinx extension: MathJax from the book's own folder, as SVG.

The offline package asks for output with web fonts, which some browsers refuse when a book is opened
as a file; SVG needs no fonts. Its `setup` sets `mathjax_path` too, so ours comes after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Configure MathJax; Sphinx calls this function."""
    app.setup_extension("sphinx-mathjax-offline")
    app.config.mathjax_path = "mathjax/tex-svg.js"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
