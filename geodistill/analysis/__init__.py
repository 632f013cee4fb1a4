"""From stored rows to an answer: reads tidy tables, tests, plans, draws; never imports torch.

`rows` reads and checks stored results; `crossed` is the mathematics of the primary analysis and
`compare` applies it to methods; `verdict` is the one ordered rule from an answer to a word;
`checks` holds second opinions and `second` their table; `scores` and `resampled` treat scores that
are no item means; `simulate` tries it all on a known truth; `report` makes tables and captions,
`figures` and `style` pictures.
"""
