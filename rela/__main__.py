"""`python -m rela`: the command line; each process of a training on several devices runs it."""

import sys

from rela.cli import main

if __name__ == "__main__":
    sys.exit(main(prog_name="rela"))
