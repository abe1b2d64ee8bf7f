"""Where the trees of guests lie: a directory that root alone can enter, and the host's own mounts for a guest."""
