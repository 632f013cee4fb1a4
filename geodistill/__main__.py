"""`python -m geodistill` is the command line."""

from geodistill.cli.main import main

main()
