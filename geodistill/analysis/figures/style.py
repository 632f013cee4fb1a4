"""The style of every figure: colour, marker and label of each method, and the style sheet."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from zlib import crc32

# Okabe & Ito (2008), colour-blind safe; yellow is left out, too pale on white.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F"


@dataclass(frozen=True)
class MethodStyle:
    """How a method is shown everywhere.

    Attributes:
        color: matplotlib colour.
        marker: matplotlib marker.
        label: name in text.
    """

    color: str
    marker: str
    label: str


# A loss has the same colour and marker alone and added to another loss.
_LOSSES = {
    "procrustes": MethodStyle(VERMILLION, "o", "Procrustes"),
    "gram": MethodStyle(BLUE, "s", "Gram"),
    "cka": MethodStyle(ORANGE, "^", "CKA"),
    "projection": MethodStyle(GREEN, "D", "learned projection"),
    "pca": MethodStyle(SKY, "v", "PCA target"),
    "spectrum": MethodStyle(PURPLE, "P", "spectrum part"),
    "alignment": MethodStyle(GREEN, "p", "alignment part"),
    "isotropy": MethodStyle(SKY, "*", "isotropy, no teacher"),
    "orthogonal-projection": MethodStyle(GREY, "h", "orthogonal projection"),
    "root-cka": MethodStyle(ORANGE, ">", "√CKA"),
    "flex": MethodStyle(SKY, "d", "Flex"),
    "rkd": MethodStyle(GREEN, "<", "RKD"),
    "pkd": MethodStyle(BLACK, "H", "PKD"),
    "procrustes-shuffled": MethodStyle(GREY, "X", "Procrustes, rows shuffled"),
    "procrustes-pretrained": MethodStyle(VERMILLION, "P", "Procrustes, teacher before fine-tuning"),
}
_BASES = {
    "kd": "KD",
    "ce": "cross-entropy",
    "sft": "SFT",
    "skew": "skew KL",
    "seqkd": "SeqKD",
}
METHOD_STYLE: dict[str, MethodStyle] = {
    "ce": MethodStyle(GREY, ".", "cross-entropy"),
    "sft": MethodStyle(GREY, ".", "SFT"),
    "sft-start": MethodStyle(GREY, "1", "SFT start"),
    "kd": MethodStyle(BLACK, "p", "KD"),
    "kd, two stages": MethodStyle(BLACK, "d", "KD, two stages"),
    "kd+procrustes, two stages": MethodStyle(VERMILLION, "8", "KD + Procrustes, two stages"),
    "skew": MethodStyle(BLACK, ">", "skew KL"),
    "seqkd": MethodStyle(BLACK, "<", "SeqKD"),
    "unigram": MethodStyle(GREY, "_", "unigram model"),
    "start": MethodStyle(GREY, "|", "untrained start"),
    "teacher": MethodStyle(BLACK, "*", "teacher"),
    "majority": MethodStyle(GREY, "_", "majority class"),
    "tfidf": MethodStyle(GREY, "|", "TF-IDF, linear model"),
    "frozen": MethodStyle(GREY, "1", "frozen features, linear model"),
    "all methods": MethodStyle(BLACK, "o", "all methods"),
    **_LOSSES,
    **{
        f"{base}+{name}": MethodStyle(style.color, style.marker, f"{label} + {style.label}")
        for base, label in _BASES.items()
        for name, style in _LOSSES.items()
    },
}


def method_style(method: str) -> MethodStyle:
    """The style of a method; an unknown one keeps its name and a colour and marker by its hash.

    Example:
        >>> from geodistill.analysis import method_style
        >>> method_style("kd+gram").label, method_style("my method").label
        ('KD + Gram', 'my method')
    """
    if method in METHOD_STYLE:
        return METHOD_STYLE[method]
    number = crc32(method.encode())
    colors = (VERMILLION, BLUE, ORANGE, GREEN, SKY, PURPLE)
    return MethodStyle(colors[number % 6], "os^Dvph"[number // 6 % 7], method)


def comparison_label(method: str, baseline: str) -> str:
    """The name of a comparison in tables, figures and the ledger."""
    return f"{method_style(method).label} vs {method_style(baseline).label}"


@contextmanager
def geodistill_style() -> Iterator[None]:
    """Figures drawn inside have the style of the book; matplotlib is restored afterwards."""
    import matplotlib.pyplot as plt  # a terminal table needs no matplotlib

    sheet = files("geodistill.analysis.figures") / "geodistill.mplstyle"
    with as_file(sheet) as path, plt.style.context(path):
        yield
