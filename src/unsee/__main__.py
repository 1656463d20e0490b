"""`python -m unsee`."""

from unsee.cli import main

main()
