"""`python -m landscape`, and with it `torchrun -m landscape`: the command line."""

from landscape.cli.main import main

main()
