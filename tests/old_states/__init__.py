"""States of each preset as they were written before methods were made of parts (`make.py` beside this file), packed."""
