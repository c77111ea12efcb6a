"""What is printed when a process ends is what a person needs."""

import subprocess
import sys

SHARER = """
import sys
from ldmctl.endings import hush_half_handovers

hush_half_handovers()
code = compile("raise EOFError('half a connection')", {file!r}, "exec")
try:
    exec(code)
except EOFError:
    kind, error, trace = sys.exc_info()
    sys.excepthook(kind, error, trace.tb_next)
"""


def said(file):
    return subprocess.run([sys.executable, "-c", SHARER.format(file=file)], capture_output=True, text=True, check=True).stderr


def test_a_half_handover_of_a_killed_decoding_process_prints_no_traceback():
    assert said("/usr/lib/python3/multiprocessing/resource_sharer.py") == ""


def test_any_other_traceback_is_printed():
    assert "EOFError: half a connection" in said("/usr/lib/python3/multiprocessing/connection.py")
