"""Named places where a test may kill the process, to prove that nothing is lost there.

Without ``VS_TOOLS_FAULT`` (production) a checkpoint costs one dictionary look-up. With ``VS_TOOLS_FAULT=NAME``
the process is killed by SIGKILL at that place, or stopped with ``VS_TOOLS_FAULT_SIGNAL=STOP`` as well. With
``VS_TOOLS_FAULT_TRACE=FILE`` each place passed is appended to FILE, so that a test can find them all by itself.
``VS_TOOLS_FAULT_PATIENCE=SECONDS`` shortens waits for somebody who is dead.
"""

import os
import signal


def patience(seconds: float) -> float:
    """How long to wait for a sign of life: ``seconds``, but where a test cannot wait so long."""
    return min(seconds, float(os.environ.get("VS_TOOLS_FAULT_PATIENCE", seconds)))


def checkpoint(name: str) -> None:
    """Pass the place called ``name``."""
    environ = os.environ
    if "VS_TOOLS_FAULT_TRACE" in environ:
        with open(environ["VS_TOOLS_FAULT_TRACE"], "a") as trace:  # noqa: PTH123 - cheap
            trace.write(name + "\n")
    if environ.get("VS_TOOLS_FAULT") == name:
        os.kill(os.getpid(), signal.Signals[f"SIG{environ.get('VS_TOOLS_FAULT_SIGNAL', 'KILL')}"])
