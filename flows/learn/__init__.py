"""One stream learned: what travels between flows and tasks, its sessions, and how far it is."""
