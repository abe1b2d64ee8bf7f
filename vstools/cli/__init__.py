"""One thin file a command: options in, one call of the library, lines out."""

import gc

gc.set_threshold(100_000)  # what a start-up makes stays: walking it again and again takes a tenth of a command's time
