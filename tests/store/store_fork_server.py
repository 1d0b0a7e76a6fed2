"""Started with the shim preloaded and everything imported: forks one child for each operation that is asked for.

Reads a JSON line {"operation", "root", "mode", "target", "failure"}; answers one with how the child ended.
"""

import ctypes
import json
import os
import sys
from pathlib import Path

import pyarrow
from store_operations import OPERATIONS
from store_rows import RUN, Row, rows_of

from grhpc.store.shard import decode, encode

shim = ctypes.CDLL(None)
shim.shim_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int]
shim.shim_calls.restype = shim.shim_trace.restype = ctypes.c_long
shim.shim_trace.argtypes = [ctypes.c_char_p, ctypes.c_long]


def child(job: dict, answer: int) -> None:
    shim.shim_arm(os.fsencode(job["root"]), job["mode"], job["target"], job["failure"])
    try:
        told = {"result": OPERATIONS[job["operation"]](Path(job["root"]))}
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        told = {"error": kinds, "problem": str(error), "remedy": getattr(error, "remedy", "")}
    shim.shim_disarm()
    os.write(answer, json.dumps(told).encode())
    os._exit(0)


def main() -> None:
    pyarrow.set_cpu_count(1)
    # Whatever is imported at the first use is imported before the fork: a child then starts in milliseconds.
    decode(encode(rows_of(0), run_id=RUN), Path("warm"), Row, run_id=RUN)
    trace = ctypes.create_string_buffer(1 << 18)
    for line in sys.stdin:
        job = json.loads(line)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            child(job, writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            told = json.loads(file.read() or b"{}")
        status = os.waitpid(pid, 0)[1]
        length = shim.shim_trace(trace, len(trace))
        told |= {"killed": os.WIFSIGNALED(status), "calls": shim.shim_calls(), "trace": trace.raw[:length].decode()}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
