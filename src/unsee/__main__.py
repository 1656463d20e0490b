"""`python -m unsee`."""

from unsee.cli.main import main

main()
