"""`python -m concordax`: the command line."""

from concordax.cli import main

if __name__ == "__main__":
    main()
