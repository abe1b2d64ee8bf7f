"""vs-slave: what a master's commands run on a host, over ssh. Nothing of it is for people.

Without words it is the agent; ``send NAME MODE``, ``receive NAME`` and ``lay NAME`` are the other end of the master's
rsync; ``list NAME [quick]`` says what is in a tree now; ``guard NAME TOKEN`` starts a guest again that was stopped for
a while by somebody who was killed then.
"""

import sys

from vstools import paths as installation
from vstools.errors import VsError


def main() -> None:
    """The command."""
    from vstools import signals

    words, paths = sys.argv[1:], installation.from_environment()
    try:
        with signals.ending():
            if not words:
                from vstools.pool import agent

                agent.converse(paths)
            elif words[0] == "send" and len(words) > 3:
                from vstools.pool import giving

                sys.exit(giving.send(paths, words[1], words[2], words[3:]))
            elif words[0] == "receive" and len(words) > 1:
                from vstools.pool import giving

                sys.exit(giving.receive(paths, words[1], words[2:]))
            elif words[0] == "lay" and len(words) > 1:
                from vstools.pool import laying

                sys.exit(laying.receive(paths, words[1], words[2:]))
            elif words[0] == "list" and words[2:] in ([], ["quick"]) and len(words) > 1:
                from vstools.pool import listing

                listing.give(paths, words[1], quick=len(words) > 2)
            elif words[0] == "guard" and len(words) == 3:
                from vstools.pool import giving

                giving.guard(paths, words[1], words[2])
            else:
                print("vs-slave: this is for a master's commands; there is nothing to give", file=sys.stderr)
                sys.exit(2)
    except (VsError, OSError) as error:
        print(f"vs-slave: {error}", file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, VsError) else 1)
