"""`python -m colorcli` is `colorcli`: what starts several processes takes a module, `torchrun ... -m colorcli`."""

import sys

from colorcli.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
