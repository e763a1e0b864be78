"""`python -m rela`: the command line, also as the program of each process of a training."""

import sys

from rela.cli import main

if __name__ == "__main__":
    sys.exit(main(prog_name="rela"))
