"""What the checks of each vendor's client share: counting, faults, and where the sandbox is."""

import json
import os
import sys
import urllib.request

BASE = os.environ["SANDBOX"]
DONE = []


def control(method, path, body=None):
    """A request to the sandbox's own routes."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(BASE + path, data=data, method=method, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return answer.read()


def fault(provider, operation, kind, **more):
    """What befalls the next call of this operation."""
    control("POST", "/v1/sandbox/faults", {"provider": provider, "operation": operation, "fault": kind, "times": 1, **more})


def check(name, holds=True):
    """Counts a check; the first that fails is told with its name, and ends the program."""
    if not holds:
        print(f"failed: {name}", flush=True)
        sys.exit(1)
    DONE.append(name)


def raises(name, kind, call, holds=lambda error: True):
    """That a call fails with this exception of the vendor's."""
    try:
        answered = call()
    except kind as error:
        check(name, holds(error))
        return
    except Exception as error:
        print(f"failed: {name}: {type(error).__name__}: {error}", flush=True)
        sys.exit(1)
    print(f"failed: {name}: answered {answered!r}", flush=True)
    sys.exit(1)


def done():
    """The last line, which the test reads."""
    for name in DONE:
        print(f"ok: {name}")
    print(f"{len(DONE)} of {len(DONE)}", flush=True)
