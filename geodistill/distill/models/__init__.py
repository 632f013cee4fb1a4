"""What is asked of a model: its head, its inputs, features of its modules, its blocks."""
