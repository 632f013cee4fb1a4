"""Execute the notebooks, record where figures come from, build the book. Never imports torch."""
