"""The master's side: what is known of all hosts of a pool, and the copies of their guests."""
