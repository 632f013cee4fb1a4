"""The OPT instruction study."""
