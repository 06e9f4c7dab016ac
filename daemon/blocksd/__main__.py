"""`python -m blocksd` is the command `blocksd`."""

from blocksd.cli import main

main()
