"""The BERT classification study."""
