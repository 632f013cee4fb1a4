"""A table of the field: AUC of a decision tree on 14 data sets (Demšar 2006, Table 2)."""

C45 = [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.000, 0.940, 0.619, 0.972,
       0.957]  # fmt: skip
TUNED = [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.000, 0.962, 0.666, 0.981,
         0.978]  # fmt: skip
"""C4.5, and C4.5 with a tuned parameter m."""
