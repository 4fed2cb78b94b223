"""TensorBoard's curves: read back from the file's records, by their names, and never a reason for a run to end."""

import math
import os
import signal
import struct
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from tensorboardX import record_writer
from tensorboardX.proto.event_pb2 import Event, SessionLog

from nft_jax.run.tensorboard import TensorBoard


def events(folder):
    """The events of all files in the order of their names; a half-written record at the end of a file is none."""
    found = []
    for path in sorted(folder.iterdir()):
        assert path.name.startswith("events.out.tfevents.")
        content = path.read_bytes()
        while len(content) >= 12:
            head, data = content[:8], content[12 : 12 + struct.unpack("Q", content[:8])[0]]
            end = 12 + len(data)
            sums = struct.pack("II", record_writer.masked_crc32c(head), record_writer.masked_crc32c(data))
            assert content[8:12] + content[end : end + 4] == sums
            found.append(Event.FromString(data))
            content = content[end + 4 :]
        assert not content
    return found


def curves(folder):
    """As TensorBoard shows them: a session's start removes what is there of its step and later ones."""
    shown = {}
    for event in events(folder):
        if event.HasField("session_log"):
            assert event.session_log.status == SessionLog.START
            shown = {name: {s: x for s, x in curve.items() if s < event.step} for name, curve in shown.items()}
        for value in event.summary.value:
            shown.setdefault(value.tag, {})[event.step] = value.simple_value
    return shown


def test_tensorboard_takes_the_names_of_the_metrics(tmp_path):
    values = {
        "step": 4,
        "reward": 0.5,
        "tokens": 480,
        "kl": None,
        "late": True,
        "note": "text",
        "ratio": np.float32(1.25),
        "verdicts": {"incorrect": 3, "correct": 0, "error": None},
        "rate_histogram": [6, 0, 3],
    }
    with TensorBoard(tmp_path / "deep" / "board", 0) as board:
        board.add(4, values)
        board.add(5, {"reward": math.nan})
        board.add(5, {"greedy": 0.75, "by_kind": {"chain": 1.0}}, prefix="evaluation")
    shown = curves(tmp_path / "deep" / "board")
    assert math.isnan(shown["reward"].pop(5))
    assert shown == {
        "reward": {4: 0.5},
        "tokens": {4: 480},
        "ratio": {4: 1.25},
        "verdicts/incorrect": {4: 3},
        "verdicts/correct": {4: 0},
        **{f"rate_histogram/{i}": {4: count} for i, count in enumerate((6, 0, 3))},
        "evaluation/greedy": {5: 0.75},
        "evaluation/by_kind/chain": {5: 1.0},
    }
    first = events(tmp_path / "deep" / "board")[0]
    assert first.file_version == "brain.Event:2"
    assert all(event.wall_time > 1.7e9 for event in events(tmp_path / "deep" / "board"))


def test_tensorboard_replaces_later_steps_of_a_resumed_run(tmp_path):
    for resume_from, steps in ((0, 6), (3, 2), (4, 1)):
        with TensorBoard(tmp_path, resume_from) as board:
            for step in range(resume_from + 1, resume_from + 1 + steps):
                board.add(step, {"reward": 10 * resume_from + step})
    assert curves(tmp_path)["reward"] == {1: 1, 2: 2, 3: 3, 4: 34, 5: 45}
    with TensorBoard(tmp_path, 0) as board:  # from the beginning
        board.add(0, {"other": 1})
    assert curves(tmp_path) == {"reward": {}, "other": {0: 1}}


def numbered(steps):
    return [{"step": step, "reward": 10.0 * step, "rate_histogram": [step, 1]} for step in steps]


def write_session(folder, resume_from, steps, kept=(), scores=(), kept_scores=()):
    """Adds the events of a run that begins after `resume_from` and takes these steps."""
    with TensorBoard(folder, resume_from, {"": numbered(kept), "validation": numbered(kept_scores)}) as board:
        for row in numbered(steps):
            board.add(row["step"], row)
        for row in numbered(scores):
            board.add(row["step"], row, "validation")


def shown_steps(folder, name="reward"):
    """The steps of a curve, a step as often as it is shown."""
    steps = []
    for event in events(folder):
        if event.HasField("session_log"):
            steps = [step for step in steps if step < event.step]
        steps += [event.step for value in event.summary.value if value.tag == name]
    return steps


@pytest.mark.parametrize("moves", [(0, -3600, -7200), (0, 10**9, -3600), (0, 0, 0)], ids=["back", "ahead", "still"])
def test_tensorboard_shows_each_step_once_whatever_the_clock_says(tmp_path, monkeypatch, moves):
    now = time.time()
    for (done, steps), move in zip(((0, range(1, 7)), (4, range(5, 9)), (8, range(9, 11))), moves, strict=True):
        monkeypatch.setattr(time, "time", lambda move=move: now + move)
        write_session(tmp_path, done, steps, range(1, done + 1))
    assert shown_steps(tmp_path) == list(range(1, 11))
    assert len(list(tmp_path.iterdir())) == 3


def test_tensorboard_begins_after_a_file_of_any_name(tmp_path):
    for name in ("events.out.tfevents.1.host", "events.out.tfevents.9999999999.host.1.0.v2"):
        (tmp_path / name).write_bytes(b"")
    for _ in range(3):
        write_session(tmp_path, 0, range(1, 4))
    assert shown_steps(tmp_path) == [1, 2, 3]


def test_tensorboard_adds_the_steps_that_its_files_lack(tmp_path):
    """After a disk that was full, and after a kill between the line of a score and its event."""
    write_session(tmp_path, 0, [1, 2, 3, 6], scores=[0, 2])
    write_session(tmp_path, 6, [7, 8], kept=range(1, 7), kept_scores=[0, 2, 4, 6])
    assert shown_steps(tmp_path) == list(range(1, 9))
    assert shown_steps(tmp_path, "validation/reward") == [0, 2, 4, 6]
    assert curves(tmp_path)["rate_histogram/0"] == {step: step for step in range(1, 9)}
    # What is there already is not written again.
    before = len(events(tmp_path))
    write_session(tmp_path, 8, [9], kept=range(1, 9), kept_scores=[0, 2, 4, 6])
    assert len(events(tmp_path)) == before + 3


def test_tensorboard_shows_the_score_of_the_last_step_once_where_it_is_taken_again(tmp_path):
    write_session(tmp_path, 0, [1, 2], scores=[0, 2])
    write_session(tmp_path, 2, [], kept=[1, 2], scores=[2], kept_scores=[0])
    assert shown_steps(tmp_path) == [1, 2]
    assert shown_steps(tmp_path, "validation/reward") == [0, 2]


@pytest.mark.parametrize("damage", [b"", b"\0" * 30, b"garbage", None], ids=["empty", "zeros", "garbage", "cut"])
def test_tensorboard_adds_what_a_damaged_file_lost(tmp_path, damage):
    write_session(tmp_path, 0, range(1, 5))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-20] if damage is None else damage)
    write_session(tmp_path, 4, [5], kept=range(1, 5))
    file.unlink()
    assert shown_steps(tmp_path) == list(range(4 if damage is None else 1, 6))


def test_tensorboard_keeps_what_was_added_before_a_kill(tmp_path):
    code = (
        "import os, signal, sys, pathlib; from nft_jax.run.tensorboard import TensorBoard;"
        "board = TensorBoard(pathlib.Path(sys.argv[1]), 0);"
        "[board.add(step, {'reward': step}) for step in (1, 2, 3)];"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run([sys.executable, "-c", code, tmp_path], env=environment)
    assert ended.returncode == -signal.SIGKILL
    assert curves(tmp_path) == {"reward": {1: 1, 2: 2, 3: 3}}


def test_tensorboard_reports_a_full_disk_once_and_ends_nothing(tmp_path, capfd):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    board = TensorBoard(tmp_path, 0)
    board.add(1, {"reward": 1.0})
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), board._file._writer.fileno())
    for step in range(2, 50):
        board.add(step, {"reward": 1.0})
    board.close()
    printed = f"{tmp_path} can't be written: [Errno 28] No space left on device; the run goes on without TensorBoard\n"
    assert capfd.readouterr().err == printed
    assert curves(tmp_path) == {"reward": {1: 1}}


def test_tensorboard_goes_on_without_a_folder(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    with TensorBoard(tmp_path / "file" / "board", 3) as board:
        board.add(4, {"reward": 1.0})
    assert capfd.readouterr().err.count("file/board can't be written") == 1


def test_tensorboard_close_twice_and_add_later_do_nothing(tmp_path):
    board = TensorBoard(tmp_path, 0)
    board.add(1, {"reward": 1.0})
    board.close()
    board.close()
    board.add(2, {"reward": 1.0})
    assert curves(tmp_path) == {"reward": {1: 1}}


def test_tensorboard_is_written_by_process_0_only(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with TensorBoard(tmp_path / "board", 0) as board:
        board.add(1, {"reward": 1.0})
    assert not (tmp_path / "board").exists()
