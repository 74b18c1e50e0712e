"""`python -m flows` is `evergreen`."""

from flows.cli import main

if __name__ == "__main__":
    main()
