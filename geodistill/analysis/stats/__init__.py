"""Statistical tests and estimates."""
