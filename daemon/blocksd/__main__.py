"""`python -m blocksd` is the command `blocksd`."""

from blocksd.cli.main import main

main()
