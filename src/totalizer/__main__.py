"""`python -m totalizer`: the command line."""

from totalizer.ops.cli import main

if __name__ == "__main__":
    main()
