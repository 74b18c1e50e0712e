"""What a state answers, cell by cell, and what is read off that."""
