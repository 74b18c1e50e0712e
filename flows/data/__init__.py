"""Which data a run sees: versions through DVC, data sets by name, and what keeps them."""
