"""The style of every figure: colour, marker and label of each method, and the style sheet."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from zlib import crc32

# Okabe & Ito (2008), colour-blind safe; yellow is left out, too pale on white.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F"
# Five more that stay apart from these and from each other, also for colour-blind readers.
INDIGO, WINE, OLIVE, BROWN, SALMON = "#332288", "#882255", "#A3A33A", "#7A4419", "#FB9A99"


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


# A loss has the same colour and marker alone and added to another loss. The losses of one study
# never share a colour; what has no feature loss is black or grey.
_LOSSES = {
    "procrustes": MethodStyle(VERMILLION, "o", "Procrustes"),
    "gram": MethodStyle(BLUE, "s", "Gram"),
    "cka": MethodStyle(ORANGE, "^", "CKA"),
    "projection": MethodStyle(GREEN, "D", "learned projection"),
    "pca": MethodStyle(SKY, "v", "PCA target"),
    "spectrum": MethodStyle(PURPLE, "P", "spectrum part"),
    "alignment": MethodStyle(INDIGO, "p", "alignment part"),
    "isotropy": MethodStyle(OLIVE, "*", "isotropy, no teacher"),
    "orthogonal-projection": MethodStyle(WINE, "h", "orthogonal projection"),
    "procrustes-shuffled": MethodStyle(BROWN, "X", "Procrustes, rows shuffled"),
    "procrustes-pretrained": MethodStyle(SALMON, "d", "Procrustes, teacher before fine-tuning"),
    # of earlier studies, in tables only
    "root-cka": MethodStyle(ORANGE, ">", "√CKA"),
    "flex": MethodStyle(SKY, "d", "Flex"),
    "rkd": MethodStyle(GREEN, "<", "RKD"),
    "pkd": MethodStyle(PURPLE, "H", "PKD"),
}
_PLAIN = {
    "kd": MethodStyle(BLACK, "p", "KD"),
    "teacher": MethodStyle("#444444", "*", "teacher"),
    "ce": MethodStyle("#616161", ".", "cross-entropy"),
    "sft": MethodStyle("#616161", "+", "SFT"),
    "sft-start": MethodStyle("#616161", "1", "SFT start"),
    "seqkd": MethodStyle(GREY, "<", "SeqKD"),
    "skew": MethodStyle(GREY, ">", "skew KL"),
    "majority": MethodStyle("#969696", "_", "majority class"),
    "lookup": MethodStyle("#969696", "2", "lookup"),
    "unigram": MethodStyle("#969696", "x", "unigram model"),
    "tfidf": MethodStyle("#B0B0B0", "|", "TF-IDF, linear model"),
    "nearest": MethodStyle("#B0B0B0", "3", "nearest"),
    "frozen": MethodStyle("#CBCBCB", "4", "frozen features, linear model"),
    "start": MethodStyle("#CBCBCB", "s", "untrained start"),
}
METHOD_STYLE: dict[str, MethodStyle] = {
    **_PLAIN,
    **_LOSSES,
    **{
        f"{base}+{name}": replace(style, label=f"{_PLAIN[base].label} + {style.label}")
        for base in ("kd", "ce", "sft", "skew", "seqkd")
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
