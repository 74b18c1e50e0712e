"""`python -m flows` is `evergreen`."""

from flows.cli.main import main

if __name__ == "__main__":
    main()
