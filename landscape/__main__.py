"""`python -m landscape`, and with it `torchrun -m landscape`: the command line."""

from landscape.cli import start

start()
