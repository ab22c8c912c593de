"""`python -m tunebank` is `tunebank`."""

from tunebank.cli import main

main()
