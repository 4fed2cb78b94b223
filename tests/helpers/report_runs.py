"""A finished run as files, with hostile answers, for the page of a run."""

import json

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)> \u202e \u2028 <!-- &lt; 2 < 3"
# Two rounds of two prompts in two slots.
DECODING = {"slots": 2, "shards": 1, "in_step": 1, "begins_next": True, "max_rounds": 4, "max_halvings": 0}
METRICS = {
    "reward": 0.4,
    "rate_histogram": [4, 0, 6, 0, 0, 9, 0, 0, 8, 0, 5],
    "entropy": 0.7,
    "gradient_norm": 1.2,
    "answer_length": 3.0,
    "answer_length_max": 4,
    "sampler_gap_mean": 1e-7,
    "sampler_gap_max": 3e-6,
    "ratio_max_by_update": [1.0, 1.25],
    "tokens": 128,
    "seconds": 2.0,
}


def group(prompt, answer, *, tokens=True):
    scored = {"texts": [answer, "."], "sampler": [-0.5, -1.0], "after": [-0.25, -2.0]}
    scored |= {"old": [-0.5, -1.0], "new": [-0.375, -1.5], "entropy": [0.5, 0.1], "multiplier": [0.75, 0.0]}
    scored |= {"gap": [2e-7, -4e-7]}
    return {
        "prompt": f"Q: {prompt}\nA:",
        "reference": "5",
        "rate": 0.5,
        "answers": [answer, "4"],
        "verdicts": ["correct", "incorrect"],
        "extracted": [answer, "4"],
        "reasons": ["", "not the reference"],
        "truncated": [False, False],
        "lengths": [2, 2],
    } | ({"update": 1, "tokens": [scored, scored]} if tokens else {})


def held_out(problem, correct):
    verdict = "correct" if correct else "incorrect"
    return {
        "id": problem,
        "prompt": f"Q: {problem}\nA:",
        "reference": "5",
        "kind": "even" if int(problem[0]) % 2 == 0 else "odd",
        "answers": [HOSTILE, "5"],
        "verdicts": [verdict, "correct"],
        "extracted": [HOSTILE, "5"],
        "reasons": ["" if correct else "not the reference", ""],
        "truncated": [False, False],
    }


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_run(folder, *, final=(True, False, True), rollouts=2):
    write_lines(folder / "metrics.jsonl", [{"step": step} | METRICS for step in (1, 2)])
    for step in range(1, rollouts + 1):
        groups = [group(HOSTILE, HOSTILE), group("2 + 3", "5", tokens=False)]
        write_lines(folder / "rollouts" / f"step_{step:06d}.jsonl", groups)
        slots = {"step": step, "decoding": DECODING, "capacity": 14, "lengths": [[[3, 1], [1, 1]], [[2, 2], [2, 2]]]}
        write_lines(folder / "rollouts" / f"slots_{step:06d}.json", [slots])
    for stage, correct in (("base", (False, False, True)), ("step000010", (False, True, True)), ("final", final)):
        rows = [held_out(f"{n} + 1", value) for n, value in enumerate(correct)]
        write_lines(folder / "held_out" / f"test_{stage}.jsonl", rows)
    return folder
