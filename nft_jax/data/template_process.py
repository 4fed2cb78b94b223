"""Rendering of Jinja templates in another process, with limits of time, memory and length."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Of one prompt: a usual one takes a thousandth.
_SECONDS = 5
_MIB, _CHARACTERS = 1024, 10**7


class Rendering(NamedTuple):
    """What a template gives.

    Attributes:
      texts: The text for each input; fewer after a fault.
      fault: What went wrong; "" for nothing.
      used: The variables of a "file"; None if it is no template, or was not read to its end.
    """

    texts: list[str]
    fault: str
    used: list[str] | None


def render_apart(
    kind: str, template: str, inputs: Sequence[Mapping[str, Any]], constants: Mapping[str, Any] | None = None
) -> Rendering:
    """Renders a template for each input, none of which may take more than 5 s of processor time.

    Args:
      kind: "chat": inputs have `messages`, and transformers renders; "file": inputs have any variables.
      constants: Further variables of a chat, such as the texts of special tokens.
    """
    request = {"kind": kind, "template": template, "inputs": list(inputs), "constants": dict(constants or {})}
    request |= {"seconds": _SECONDS, "mib": _MIB, "characters": _CHARACTERS}
    # -P: the folder of the file has modules whose names those of others may shadow.
    command = [sys.executable, "-P", str(Path(__file__).with_name("template_worker.py"))]
    done = subprocess.run(command, input=json.dumps(request).encode(), capture_output=True)
    if done.returncode == -signal.SIGPROF:
        return Rendering([], f"one prompt takes it more than {_SECONDS} s of processor time, so it loops", None)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return Rendering(
            [], f"it ended the process that renders it (code {done.returncode}) {last[:200]}".strip(), None
        )
    result = Rendering(**json.loads(done.stdout))
    return result._replace(fault=result.fault[:1000])
