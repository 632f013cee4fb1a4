"""Families of instructions whose answers are computed: their operands and rules.

A family asks one thing of a list of words or numbers, in five wordings, and has a rule for
the answer. Lists are of several lengths. No student is trained on the families in
`TRANSFER_FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from geodistill.tasks.computed_wordings import KINDS, NUMBERS, ORDINALS, WORDS

LARGEST_ADDEND = 49
LENGTHS = (3, 4, 5, 6)
"""Numbers of words in a list, if a family has no others."""


@dataclass(frozen=True)
class Operands:
    """What an instruction is about.

    Attributes:
        items: the list of words or numbers.
        fields: other values that the wording names, such as `x`, a word of the list.
    """

    items: tuple[str, ...]
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """All words and numbers in the order of the alphabet, whatever is asked about them."""
        extra = [self.fields[name] for name in ("x", "y") if name in self.fields]
        return " ".join(sorted({*self.items, *extra}))


@dataclass(frozen=True)
class Family:
    """One kind of instruction.

    Attributes:
        name: of the family.
        draw: operands for a length and a turn; the turn, counted up, balances what is asked for.
        answer: the rule.
        lengths: of the lists.
    """

    name: str
    draw: Callable[[Random, int, int], Operands]
    answer: Callable[[Operands], str]
    lengths: tuple[int, ...] = LENGTHS

    def operands(self, generator: Random, turn: int) -> Operands:
        """Operands of the turn's length; the turns that follow go through all that is asked for.

        Args:
            generator: draws the words and numbers.
            turn: 0, 1, 2, ...
        """
        choice, length = divmod(turn, len(self.lengths))
        return self.draw(generator, self.lengths[length], choice)


def _words(generator: Random, length: int, turn: int) -> Operands:
    return Operands(tuple(generator.sample(WORDS, length)))


def _numbers(generator: Random, length: int, turn: int) -> Operands:
    return Operands(tuple(generator.sample(NUMBERS, length)))


def _addends(generator: Random, length: int, turn: int) -> Operands:
    a, b = (str(generator.randint(1, LARGEST_ADDEND)) for _ in range(2))
    return Operands((a, b), {"a": a, "b": b})


def _position(generator: Random, length: int, turn: int) -> Operands:
    items = _words(generator, length, turn).items
    return Operands(items, {"n": ORDINALS[turn % length]})


def _with_member(
    index: Callable[[int, int], int],
) -> Callable[[Random, int, int], Operands]:
    """A list, and as x its word at an index of turn and length."""

    def draw(generator: Random, length: int, turn: int) -> Operands:
        items = _words(generator, length, turn).items
        return Operands(items, {"x": items[index(turn, length)]})

    return draw


_followed = _with_member(lambda turn, n: turn % (n - 1))  # another word follows it
_preceded = _with_member(lambda turn, n: 1 + turn % (n - 1))
_member = _with_member(lambda turn, n: turn % n)


def _member_and_new(generator: Random, length: int, turn: int) -> Operands:
    *items, new = generator.sample(WORDS, length + 1)
    return Operands(tuple(items), {"x": items[turn % length], "y": new})


def _member_or_not(generator: Random, length: int, turn: int) -> Operands:
    """In every other turn a word of the list, at each place in turn; else a new one."""
    *items, new = generator.sample(WORDS, length + 1)
    return Operands(tuple(items), {"x": new if turn % 2 else items[turn // 2 % length]})


def _one_of_a_kind(generator: Random, length: int, turn: int) -> Operands:
    """One word of the kind that is asked for, among words of other kinds."""
    position, kind = turn % length, list(KINDS)[turn // length % len(KINDS)]
    others = [word for word in WORDS if word not in KINDS[kind].split()]
    items = generator.sample(others, length)
    items[position] = generator.choice(KINDS[kind].split())
    return Operands(tuple(items), {"kind": kind})


def _swap_ends(operands: Operands) -> str:
    first, *middle, last = operands.items
    return " ".join([last, *middle, first])


def _without(operands: Operands, word: str) -> str:
    return " ".join(item for item in operands.items if item != word)


def _neighbour(operands: Operands, step: int) -> str:
    return operands.items[operands.items.index(operands.fields["x"]) + step]


def _replaced(operands: Operands) -> str:
    old, new = operands.fields["x"], operands.fields["y"]
    return " ".join(new if item == old else item for item in operands.items)


def _of_kind(operands: Operands) -> str:
    members = KINDS[operands.fields["kind"]].split()
    return next(item for item in operands.items if item in members)


FAMILIES = {
    family.name: family
    for family in (
        Family("nth", _position, lambda o: o.items[ORDINALS.index(o.fields["n"])]),
        Family("last", _words, lambda o: o.items[-1]),
        Family("count", _words, lambda o: str(len(o.items)), (2, 3, 4, 5, 6, 7)),
        Family("reverse", _words, lambda o: " ".join(o.items[::-1])),
        Family("swap", _words, _swap_ends),
        Family("after", _followed, lambda o: _neighbour(o, 1)),
        Family("before", _preceded, lambda o: _neighbour(o, -1)),
        Family("remove", _member, lambda o: _without(o, o.fields["x"])),
        Family("replace", _member_and_new, _replaced),
        Family("contains", _member_or_not, lambda o: "yes" if o.fields["x"] in o.items else "no"),
        Family("drop_last", _words, lambda o: " ".join(o.items[:-1])),
        Family("initials", _words, lambda o: " ".join(item[0].upper() for item in o.items)),
        Family("kind", _one_of_a_kind, _of_kind),
        Family("add", _addends, lambda o: str(int(o.items[0]) + int(o.items[1])), (2,)),
        Family("sort", _numbers, lambda o: " ".join(sorted(o.items, key=int)), (2, 3, 4, 5)),
        Family("largest", _numbers, lambda o: max(o.items, key=int), (2, 3, 4, 5)),
        Family("drop_first", _words, lambda o: " ".join(o.items[1:])),
        Family("smallest", _numbers, lambda o: min(o.items, key=int), (2, 3, 4, 5)),
    )
}
"""All families by name."""
TRANSFER_FAMILIES = ("drop_first", "smallest")
"""Families that no student is trained on; each is made of parts that the others have."""
TRAINED_FAMILIES = tuple(name for name in FAMILIES if name not in TRANSFER_FAMILIES)
