"""What is learned in which order: data cut into sessions, with the sets that examine them."""
