"""How a guest's life ended, as its runner (templates/vs-guest-run) left it in /run/vs-tools/ended/NAME. Pure.

The file has a line for each of the last lives: the token of its start, a space, and ``asked`` where a living command of
ours had asked the guest to stop, else LXC's word about its init, ``signal Killed(9)`` or ``error (3)``, else, where LXC
left no word, ``lxc`` and the status of LXC's own process: 0 where the init ended with 0.

The kernel ends the init of a guest that calls reboot(2) to halt or to power off by SIGINT (``man 2 reboot``); nobody in
the guest can send that to its init so that it dies of it.
"""

import re

_WORD = re.compile(r"(signal|error) [^()]{0,32}\(?([0-9]{1,3})\)?")
_NAMES = {1: "SIGHUP", 6: "SIGABRT", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM", 31: "SIGSYS"}
_POWEROFF = 2

ASKED, BY_ITSELF, DIED = "asked", "by itself", "died"


def ending(text: str, token: str) -> tuple[str, str]:
    """(ASKED, BY_ITSELF or DIED, in words) of the life that began with ``token``, from the file's text."""
    words = [line.partition(" ")[2] for line in text.splitlines() if line.partition(" ")[0] == token]
    if not words:
        return DIED, "nothing is known of its end, its runner left no word"
    if words[-1] == "asked":
        return ASKED, "stopped by a command on this host"
    if words[-1] == "lxc 0":
        return DIED, "its init ended with status 0, without powering off"
    match = _WORD.search(words[-1])
    if match is None:
        return DIED, f"how is not known, LXC's own process ended first ({words[-1][:40]})"
    number = int(match[2])
    if match[1] == "error":
        return DIED, f"its init ended with status {number}"
    if number == _POWEROFF:
        return BY_ITSELF, "it powered itself off"
    return DIED, f"its init was ended by signal {number}{f' ({_NAMES[number]})' if number in _NAMES else ''}"
