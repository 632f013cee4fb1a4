"""The part of a chapter that reads stored results, run without its live part."""

import base64
import io
import re

import nbclient
import nbformat
import pandas as pd

from geodistill.publish.notebook_source import read_source
from support.tiny_project import REPOSITORY


def run_stored_part(name, folder, monkeypatch):
    """The outputs of a chapter from its study on, on the results in a folder.

    name: stem of the notebook, whose heading "## The study" begins the stored part.
    """
    monkeypatch.setenv("GEODISTILL_RESULTS", str(folder))
    cells = read_source(REPOSITORY / "notebooks" / f"{name}.py").cells
    (start,) = [i for i, cell in enumerate(cells) if cell.source.startswith("## The study")]
    parameters = next(cell for cell in cells if "parameters" in cell.metadata.get("tags", []))
    imports = next(cell for cell in cells if cell.source.startswith(("import ", "from ")))
    notebook = nbformat.v4.new_notebook(cells=[parameters, imports, *cells[start:]])
    client = nbclient.NotebookClient(notebook, timeout=None, kernel_name="python3")
    client.execute(cwd=str(REPOSITORY / "notebooks"))
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def figures(outputs):
    """The provenance of each figure and table and its HTML, by name."""
    shown = [output for output in outputs if "geodistill" in output.get("metadata", {})]
    facts = [{**out["metadata"]["geodistill"], "html": out["data"]["text/html"]} for out in shown]
    return {fact["name"]: fact for fact in facts}


def text(outputs):
    """What the outputs print, and their Markdown and HTML."""
    data = [output.get("data", {}) for output in outputs]
    shown = [one.get("text/markdown", "") + one.get("text/html", "") for one in data]
    return "\n".join([*(output.get("text", "") for output in outputs), *shown])


def estimate(figure, method, baseline):
    """An estimate in the data of a figure, pooled over tasks if there are several."""
    link = re.search(r'href="data:text/csv;base64,(.*?)"', figure["html"])
    data = pd.read_csv(io.BytesIO(base64.b64decode(link[1])))
    rows = data[(data["method"] == method) & (data["baseline"] == baseline)]
    (value,) = rows["estimate"]
    return float(value)
