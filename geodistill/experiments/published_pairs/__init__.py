"""Published teacher and student pairs."""
