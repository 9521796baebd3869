"""Ends its own process, hangs or answers with too much when asked to."""

import os
import signal
import sys
import time


def handle(data, context):
    if data is None:
        return None
    wish = context.get_all_request_header(0).get("X-Do", "live")
    if wish == "exit":
        sys.exit(3)
    if wish == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if wish == "hang":
        time.sleep(600)
    if wish == "flood":
        return [b"x" * 6553501]
    if wish == "bad-header":
        context.set_response_header(0, "X-Number", 7)
    return ["alive"]
