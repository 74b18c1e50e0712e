"""What is asked of what was learned: how it stands, where it broke, how two versions differ."""
