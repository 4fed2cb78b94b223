"""Renders a Jinja template in a process of its own, which the kernel ends when the template loops.

`template_process.py` runs this file. A template comes with a model or with a problem set, so it may be hostile: the
sandbox keeps it from files and code, and the limits of this process from taking all time and memory.

    stdin   {"kind": "chat" or "file", "template", "inputs": [variables, …], "constants", and the limits of a prompt:
             "seconds", "mib", "characters"}
    stdout  {"used": [variables of a "file"; null if it is no template], "texts": [one for each input], "fault": reason}
"""

import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any


def _chat(template: str, constants: dict[str, Any]) -> Callable[[dict], str]:
    """Returns what transformers makes of a chat."""
    from transformers.utils.chat_template_utils import render_jinja_template

    def render(variables):
        texts, _ = render_jinja_template(
            conversations=[variables["messages"]], chat_template=template, add_generation_prompt=True, **constants
        )
        return texts[0]

    return render


def _file(template: str) -> tuple[Callable[[dict], str], list[str]]:
    """Returns the rendering of a template with variables, and the names of those that it uses."""
    from jinja2 import meta
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment()
    used, compiled = meta.find_undeclared_variables(environment.parse(template)), environment.from_string(template)
    return (lambda variables: compiled.render(**variables)), sorted(used)


def _limit_memory(mib: int) -> None:
    """Limits the address space to so much more than what is in use, where the system can."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm", "rb") as file:
        used = int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + (mib << 20),) * 2)


def main() -> None:
    """Renders what stdin asks for."""
    request = json.load(sys.stdin.buffer)
    used, texts, fault = None, [], ""
    try:
        if request["kind"] == "chat":
            render = _chat(request["template"], request["constants"])
        _limit_memory(request["mib"])
        # Counts the time of this process alone, whatever else runs. No handler: its default is the end of the process.
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        if request["kind"] == "file":
            render, used = _file(request["template"])
        for variables in request["inputs"]:
            signal.setitimer(signal.ITIMER_PROF, request["seconds"])
            text = str(render(variables))
            if len(text) > request["characters"]:
                raise ValueError(f"it makes a prompt of {len(text):,} characters")
            text.encode()
            texts.append(text)
    except Exception as error:  # a template is a program and may raise anything
        fault = str(error) or type(error).__name__
    signal.setitimer(signal.ITIMER_PROF, 0)
    json.dump({"used": used, "texts": texts, "fault": fault}, sys.stdout)


if __name__ == "__main__":
    main()
