"""Run by test_runtime.py with `python -I -S`: an interpreter that sees the unpacked zip, what Lambda's runtime brings,
and nothing else. Imports a handler string as Lambda does, invokes it, prints what it gave and what it imported."""

import importlib
import json
import sys
from types import SimpleNamespace


def main() -> None:
    task, runtime, handler = sys.argv[1:]
    sys.path[:0] = [task, runtime]
    module, _, name = handler.partition(".")
    function = getattr(importlib.import_module(module), name)
    context = SimpleNamespace(
        function_name=name,
        function_version="$LATEST",
        memory_limit_in_mb=512,
        invoked_function_arn=f"arn:aws:lambda:eu-central-1:123456789012:function:{name}",
        aws_request_id="00000000-0000-0000-0000-000000000000",
        get_remaining_time_in_millis=lambda: 29000,
    )
    given = function(json.load(sys.stdin), context)
    outside = sorted(
        name
        for name, loaded in sys.modules.items()
        if (file := getattr(loaded, "__file__", None)) and "site-packages" in file
    )
    sys.stderr.flush()
    print("\n" + json.dumps({"given": given, "outside": outside}))


main()
