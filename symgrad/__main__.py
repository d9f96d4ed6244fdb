"""`python -m symgrad`: the command line."""

from symgrad.cli.main import main

if __name__ == "__main__":
    main()
