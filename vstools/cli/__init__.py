"""One thin file a command: options in, one call of the library, lines out."""
