"""Processes that have been."""

import subprocess
import sys

from pathoml.processes import ProcessIdentity, start_of, this_process


def dead_process() -> ProcessIdentity:
    """One of this machine, as it was started, that has ended."""
    done = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here = this_process()
    identity = ProcessIdentity(here.host, here.machine, done.pid, start_of(done.pid))
    assert identity.has_ended() is False
    done.communicate()
    assert identity.has_ended() is True
    return identity
