"""What may go because nobody needs it, and what must go because nobody may have it."""
