"""Notebook runs, provenance of figures, the book's build: the extra `book`. Never imports torch."""
