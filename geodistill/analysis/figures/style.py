"""One look for every figure: a colour, marker and label per method, and the style sheet."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from zlib import crc32

# Okabe & Ito (2008), colour-blind safe; yellow is left out, too pale on white.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F"


@dataclass(frozen=True)
class Look:
    """How one method is drawn everywhere: a matplotlib colour and marker, and its name in text."""

    color: str
    marker: str
    label: str


# A loss keeps colour and marker whether it is optimised alone or added to KD.
_LOSSES = {
    "procrustes": Look(VERMILLION, "o", "Procrustes"),
    "gram": Look(BLUE, "s", "Gram"),
    "cka": Look(ORANGE, "^", "CKA"),
    "projection": Look(GREEN, "D", "learned projection"),
    "pca": Look(SKY, "v", "PCA target"),
    "spectrum": Look(PURPLE, "P", "spectrum part"),
    "isotropy": Look(SKY, "*", "isotropy, no teacher"),
    "orthogonal-projection": Look(GREY, "h", "orthogonal projection"),
    "root-cka": Look(ORANGE, ">", "√CKA"),
    "flex": Look(SKY, "d", "Flex"),
    "rkd": Look(GREEN, "<", "RKD"),
    "pkd": Look(BLACK, "H", "PKD"),
    "procrustes-shuffled": Look(GREY, "X", "Procrustes, rows shuffled"),
}
_BASES = {
    "kd": "KD",
    "ce": "cross-entropy",
    "sft": "SFT",
    "skew": "skew KL",
    "seqkd": "SeqKD",
}
METHOD_STYLE: dict[str, Look] = {
    "ce": Look(GREY, ".", "cross-entropy"),
    "sft": Look(GREY, ".", "SFT"),
    "sft-start": Look(GREY, "1", "SFT start"),
    "kd": Look(BLACK, "p", "KD"),
    "kd, two stages": Look(BLACK, "d", "KD, two stages"),
    "kd+procrustes, two stages": Look(VERMILLION, "8", "KD + Procrustes, two stages"),
    "skew": Look(BLACK, ">", "skew KL"),
    "seqkd": Look(BLACK, "<", "SeqKD"),
    "unigram": Look(GREY, "_", "unigram model"),
    "start": Look(GREY, "|", "untrained start"),
    "teacher": Look(BLACK, "*", "teacher"),
    "all methods": Look(BLACK, "o", "all methods"),
    **_LOSSES,
    **{
        f"{base}+{name}": Look(look.color, look.marker, f"{label} + {look.label}")
        for base, label in _BASES.items()
        for name, look in _LOSSES.items()
    },
}


def look(method: str) -> Look:
    """The method's colour, marker and label; one that is not ours keeps its name and, by a hash of
    it, one of the colours and markers.
    """
    if method in METHOD_STYLE:
        return METHOD_STYLE[method]
    number = crc32(method.encode())
    colors = (VERMILLION, BLUE, ORANGE, GREEN, SKY, PURPLE)
    return Look(colors[number % 6], "os^Dvph"[number // 6 % 7], method)


def in_order(methods: Iterable[str]) -> list[str]:
    """The methods once each, in the order of `METHOD_STYLE`; others after them, as they come."""
    known = {name: place for place, name in enumerate(METHOD_STYLE)}
    return sorted(dict.fromkeys(methods), key=lambda name: known.get(name, len(known)))


def versus(method: str, baseline: str) -> str:
    """How a comparison is named in tables, figures and the ledger."""
    return f"{look(method).label} vs {look(baseline).label}"


@contextmanager
def geodistill_style() -> Iterator[None]:
    """Figures drawn inside look like the book's; matplotlib's settings are restored afterwards."""
    import matplotlib.pyplot as plt  # a terminal table needs no matplotlib

    sheet = files("geodistill.analysis") / "geodistill.mplstyle"
    with as_file(sheet) as path, plt.style.context(path):
        yield
