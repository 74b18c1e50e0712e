"""A model that grows session by session: each learned on top of the head, asked, judged and told."""
