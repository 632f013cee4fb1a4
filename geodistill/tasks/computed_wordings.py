"""Wordings of the computed instructions, and the words that they are about."""

from __future__ import annotations

KINDS = {
    "an animal": "bear cat deer dog eagle fox goat horse jaguar lion mouse otter owl pig rabbit "
    "seal tiger wolf yak zebra",
    "a fruit": "apple apricot banana cherry date fig grape guava kiwi lemon lime mango melon olive "
    "papaya peach pear plum quince raisin",
    "a tool": "anvil axe brush chisel drill file fork hammer hoe jack knife ladder mallet needle "
    "pliers rake saw shovel spade wrench",
    "a job": "actor baker barber chef clerk dentist doctor farmer guard judge lawyer nurse painter "
    "pilot poet sailor singer tailor teacher waiter",
    "a garment": "apron belt boot cap cloak coat dress glove gown hat jacket kilt robe sandal "
    "scarf shirt shoe skirt sock vest",
    "a place": "bank beach castle cave desert forest garden harbour hill island lake meadow "
    "mountain ocean park river school valley village yard",
}
"""Words by kind; each is of one kind."""
WORDS = tuple(word for words in KINDS.values() for word in words.split())
NUMBERS = tuple(str(number) for number in range(100))
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
WORDINGS = {
    "nth": (
        "What is the {n} word of: {items}",
        "Give the {n} word in this list: {items}",
        "{items}\nWhich word is the {n} one?",
        "Read these words and write down the {n} one: {items}",
        "Find the {n} word here: {items}",
    ),
    "last": (
        "What is the last word of: {items}",
        "Give the last word in this list: {items}",
        "{items}\nWhich word comes last?",
        "Take these words and write down the last one: {items}",
        "Which word is at the end here: {items}",
    ),
    "count": (
        "How many words are in this list: {items}",
        "Count the words: {items}",
        "{items}\nHow many words is that?",
        "Tell me how many words you find here: {items}",
        "Count these words and write down the number: {items}",
    ),
    "reverse": (
        "Reverse the list: {items}",
        "Write these words in reverse order: {items}",
        "{items}\nSay that backwards.",
        "Read this list from the last word to the first: {items}",
        "Give the words of this list backwards: {items}",
    ),
    "swap": (
        "Swap the first and the last word: {items}",
        "Write this list with the first and last word swapped: {items}",
        "{items}\nLet the words at both ends change places.",
        "Exchange the first word with the last: {items}",
        "Exchange the places of the first and the last word: {items}",
    ),
    "after": (
        "Which word comes after {x} in: {items}",
        "Give the word right after {x}: {items}",
        "{items}\nWhat follows {x}?",
        "Find the word that follows {x} in this list: {items}",
        "Write down the word that comes after {x}: {items}",
    ),
    "before": (
        "Which word comes before {x} in: {items}",
        "Give the word right before {x}: {items}",
        "{items}\nWhat precedes {x}?",
        "Find the word that precedes {x} in this list: {items}",
        "Write down the word that comes before {x}: {items}",
    ),
    "remove": (
        "Remove {x} from this list: {items}",
        "Write the words without {x}: {items}",
        "{items}\nLeave out {x}.",
        "Copy this list but skip {x}: {items}",
        "Read these words without {x}: {items}",
    ),
    "replace": (
        "Replace {x} with {y}: {items}",
        "Write {y} instead of {x} in this list: {items}",
        "{items}\nChange {x} to {y}.",
        "Copy these words with {y} in place of {x}: {items}",
        "Give this list with {y} instead of {x}: {items}",
    ),
    "contains": (
        "Is {x} in this list: {items}",
        "Does this list contain {x}: {items}",
        "{items}\nIs {x} one of these words?",
        "Answer yes or no, do you find {x} here: {items}",
        "Answer yes or no, is {x} one of these words: {items}",
    ),
    "drop_last": (
        "Write all words but the last: {items}",
        "Leave out the word at the end of this list: {items}",
        "{items}\nRemove the last word.",
        "Copy this list without its last word: {items}",
        "Give all words of this list but skip the last: {items}",
    ),
    "initials": (
        "Give the first letter of each word: {items}",
        "Write the initials of these words: {items}",
        "{items}\nWhat are the initials?",
        "Which letters do these words begin with: {items}",
        "Tell me the first letter of each of these words: {items}",
    ),
    "kind": (
        "Which of these is {kind}: {items}",
        "Find the word for {kind} in this list: {items}",
        "{items}\nWhich word names {kind}?",
        "One of these words is {kind}, write it down: {items}",
        "Find the one of these words that names {kind}: {items}",
    ),
    "add": (
        "What is {a} plus {b}?",
        "Add {a} and {b}.",
        "Find the sum of {a} and {b}.",
        "{a} and {b}\nWhat do they make together?",
        "What do {a} and {b} make together?",
    ),
    "sort": (
        "Sort these numbers from smallest to largest: {items}",
        "Put the numbers in order: {items}",
        "{items}\nWrite these numbers in rising order.",
        "Order this list by size, smallest first: {items}",
        "Write these numbers in order of size: {items}",
    ),
    "largest": (
        "What is the largest number: {items}",
        "Give the largest number in this list: {items}",
        "{items}\nWhich number is largest?",
        "Find the largest of these numbers: {items}",
        "Tell me the largest of these numbers: {items}",
    ),
    "drop_first": (
        "Write all words but the first: {items}",
        "Leave out the first word of this list: {items}",
        "{items}\nRemove the first word.",
        "Copy this list without its first word: {items}",
        "Give all words of this list but skip the first: {items}",
    ),
    "smallest": (
        "What is the smallest number: {items}",
        "Give the smallest number in this list: {items}",
        "{items}\nWhich number is smallest?",
        "Find the smallest of these numbers: {items}",
        "Tell me the smallest of these numbers: {items}",
    ),
}
"""Five wordings of each family; `{items}` is the list. The last one is in no training set of a
student, and all its words are in others that are."""
