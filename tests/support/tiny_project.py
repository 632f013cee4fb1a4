"""A checkout in miniature for the tests of `geodistill.publish`."""

import shutil
from pathlib import Path

import nbformat

from geodistill.publish.project import Project

REPOSITORY = Path(__file__).resolve().parents[2]
PARAMETERS = '# %% tags=["parameters"]\nprofile = "laptop"\nseed = 0\n'
FIGURE = """# %%
import matplotlib.pyplot as plt
from geodistill.publish.display import show
figure, ax = plt.subplots()
ax.plot([1, 2])
show(figure, alt="A line that rises from one to two", source="live", name="rising")
"""


def notebook(title: str, code: str = "", parameters: str = PARAMETERS) -> str:
    body = code if code.startswith("# %%") or not code else f"# %%\n{code}\n"
    return f"# %% [markdown]\n# # {title}\n# Some mathematics: $x^2$.\n{parameters}{body}"


def tiny_project(root: Path, **sources: str) -> Project:
    """A project with the repository's configuration and style, and these notebooks."""
    for folder in ("notebooks", "book", "geodistill", "data/results"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "geodistill" / "part.py").write_text("value = 1\n")
    (root / "data" / "results" / "rows.csv").write_text("1\n")
    (root / "constraints.txt").write_text("numpy==2\n")
    (root / "book" / "index.md").write_text("# Home\n\nA sentence with $y^2$ in it.\n")
    (root / "book" / "references.bib").write_text("")
    for folder in ("_static", "_extra"):
        shutil.copytree(REPOSITORY / "book" / folder, root / "book" / folder, dirs_exist_ok=True)
    (root / "_config.yml").write_text((REPOSITORY / "_config.yml").read_text())
    for name, text in sources.items():
        (root / "notebooks" / f"{name.strip('_')}.py").write_text(text)
    project = Project.at(root)
    stems = [source.stem for source in project.sources()]
    minutes = "".join(f"{stem} = 0.5\n" for stem in stems)
    (root / "notebooks" / "budgets.toml").write_text(f"[smoke]\n{minutes}[laptop]\n{minutes}")
    write_toc(root, stems)
    return project


def write_toc(root: Path, stems: list[str]) -> None:
    chapters = "".join(f"  - file: notebooks/{stem}\n" for stem in stems)
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: book/index\nchapters:\n{chapters}")


def printed(path: Path) -> str:
    """All that the cells of an executed notebook printed."""
    cells = nbformat.read(path, as_version=4).cells
    outputs = (o for cell in cells for o in cell.get("outputs", []))
    return "".join(o.text for o in outputs if o.output_type == "stream")
