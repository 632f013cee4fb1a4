"""The coverage of the intervals, simulated: `python -m geodistill.experiments.coverage`.

Writes data/results/coverage/rows.csv of this checkout, with commit and versions (2 minutes).
"""

import pandas as pd

from geodistill.analysis import simulate
from geodistill.experiments.store import provenance

if __name__ == "__main__":
    made_by = provenance()
    simulate.STORED.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(simulate.rows()).assign(**made_by).to_csv(simulate.STORED, index=False)
