"""The coverage of the intervals, simulated: `python -m geodistill.experiments.coverage`.

Writes data/results/coverage/rows.csv of this checkout, with commit and versions (2 minutes).
"""

import pandas as pd

from geodistill.analysis.stats import coverage
from geodistill.experiments.provenance import provenance

if __name__ == "__main__":
    made_by = provenance()
    path = coverage.stored_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(coverage.simulate_rows()).assign(**made_by).to_csv(path, index=False)
