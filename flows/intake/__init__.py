"""New data: dropped or given, checked, the bad set aside, the rest a session of a collection."""
