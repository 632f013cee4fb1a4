"""Tables, sentences and files."""
