"""The synthetic study."""
