"""Your own teacher and data: KD with and without a feature term, and a student to keep."""
