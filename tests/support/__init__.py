"""Fixtures and tiny models that tests share."""
