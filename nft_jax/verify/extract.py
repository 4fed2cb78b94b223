"""Find the final answer in the text of a response.

No third-party imports: this file is also loaded by the isolated grading workers.
"""

import re

BOX = r"\boxed{"
_BRACE = re.compile(r"[{}]")


def last_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{…}` of `text`, braces balanced; None if there is none or it never closes.

    Boxes inside boxes: `\boxed{\boxed{5}}` gives `5`. Escaped braces (`\{`) count as braces, as in the official reward.
    Each character is looked at a bounded number of times, so hostile text costs linear time.
    """
    start = text.rfind(BOX)
    if start < 0:
        return None
    inside = start + len(BOX)
    depth = 1
    for brace in _BRACE.finditer(text, inside):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return text[inside : brace.start()]
    return None
