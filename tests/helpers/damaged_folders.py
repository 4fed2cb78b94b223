"""Random damage to the folder of a run: one fault a folder, of every kind that disks, editors and people make."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

JSON = ("config.json", "run.json", "best.json", "result.json", "fingerprint.json", "model/config.json")
LINES = ("metrics.jsonl", "evaluation.jsonl")
ARRAYS = ("base_answers.npz",)
FILES = (*JSON[:5], *LINES, *ARRAYS, "curves.png")
FOLDERS = ("checkpoints", "model", "rollouts", "tensorboard", "tokenizer", "warm_start")
# Fields without which the file is of no use.
FIELDS = {
    "best.json": ("step",),
    "result.json": ("validation", "test"),
    "fingerprint.json": ("config", "problems"),
    "warm_start/fingerprint.json": ("config", "problems"),
}
NO_OBJECTS = (b"", b"[]", b"null", b"3", b'"text"', b"\xff\xfe\0", b"[" * 50_000, b"\0" * 300)
NAMES = ("026", "²", "١", "04", "٢٦")


class Damage(NamedTuple):
    """What was done to a folder, and the name that a message about it must have, of several one of them."""

    what: str
    names: tuple[str, ...]


def damage_folder(folder: Path, drawn: random.Random) -> Damage:
    """Damages one thing in a folder."""
    kind = drawn.choice(list(KINDS))
    name, names = KINDS[kind](folder, drawn)
    return Damage(f"{kind}: {name}", names or (Path(name).name,))


def _cut_json(folder, drawn):
    name = drawn.choice((*JSON, "warm_start/fingerprint.json"))
    content = (folder / name).read_bytes().rstrip()
    (folder / name).write_bytes(content[: drawn.randrange(1, len(content))])
    return name, ()


def _replace_json(folder, drawn):
    name = drawn.choice((*JSON, "warm_start/fingerprint.json"))
    (folder / name).write_bytes(drawn.choice(NO_OBJECTS))
    return name, ()


def _drop_field(folder, drawn):
    name = drawn.choice(list(FIELDS))
    field = drawn.choice(FIELDS[name])
    values = json.loads((folder / name).read_text())
    if drawn.random() < 0.5:
        del values[field]
    else:
        values[field] = drawn.choice((None, "text", [1], 2.5))
    (folder / name).write_text(json.dumps(values))
    return name, ()


def _edit_lines(edit: Callable) -> Callable:
    def act(folder, drawn):
        name = drawn.choice(LINES)
        lines = (folder / name).read_bytes().splitlines(keepends=True)
        (folder / name).write_bytes(b"".join(edit(lines, drawn)))
        return name, ()

    return act


def _middle(lines, drawn):
    return drawn.randrange(len(lines) - 1)


def _cut_line(lines, drawn):
    place = _middle(lines, drawn)
    cut = lines[place][: drawn.randrange(1, len(lines[place]) - 2)] + b"\n" * drawn.randrange(2)
    return [*lines[:place], cut, *lines[place + 1 :]]


def _cut_last_line(lines, drawn):
    return [*lines[:-1], lines[-1][: drawn.randrange(1, len(lines[-1]) - 2)]]


def _put_garbage(lines, drawn):
    place = _middle(lines, drawn)
    garbage = drawn.choice([*NO_OBJECTS[1:], drawn.randbytes(40).replace(b"\n", b"x")])
    return [*lines[:place], garbage + b"\n", *lines[place:]]


def _double_line(lines, drawn):
    place = drawn.randrange(len(lines))
    return [*lines[: place + 1], *lines[place:]]


def _swap_lines(lines, drawn):
    place = _middle(lines, drawn)
    return [*lines[:place], lines[place + 1], lines[place], *lines[place + 2 :]]


def _drop_line(lines, drawn):
    place = _middle(lines, drawn)
    return [*lines[:place], *lines[place + 1 :]]


def _change_line(change: Callable) -> Callable:
    def act(lines, drawn):
        place = _middle(lines, drawn)
        row = json.loads(lines[place])
        change(row, drawn)
        return [*lines[:place], json.dumps(row).encode() + b"\n", *lines[place + 1 :]]

    return act


def _drop_value(row, drawn):
    del row[drawn.choice(sorted(row))]


def _change_value(row, drawn):
    name = drawn.choice(sorted(name for name in row if row[name] is not None and row[name] != {}))
    row[name] = drawn.choice(["text", True, [["text"]], {"a": "text"}])


def _damage_arrays(folder, drawn):
    path = folder / ARRAYS[0]
    content = path.read_bytes()
    path.write_bytes(drawn.choice([b"", b"{}", drawn.randbytes(50), content[: drawn.randrange(1, len(content))]]))
    return ARRAYS[0], ()


def _drop_array(folder, drawn):
    path = folder / ARRAYS[0]
    with np.load(path) as kept:
        values = {name: kept[name] for name in kept.files}
    name = drawn.choice(sorted(values))
    if drawn.random() < 0.5:
        del values[name]
    else:
        values[name] = values[name][:-1]
    np.savez_compressed(path, **values)
    return ARRAYS[0], ()


def _rename_step(folder, drawn):
    name = drawn.choice(NAMES)
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    newest.rename(newest.with_name(name))
    return f"checkpoints/{name}", ()


def _damage_checkpoint(folder, drawn):
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    files = [path for path in sorted(newest.rglob("*")) if path.is_file() and path.stat().st_size]
    path = drawn.choice(files)
    content = bytearray(path.read_bytes())
    if drawn.random() < 0.5:
        bit = drawn.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
    else:
        del content[drawn.randrange(len(content)) :]
    path.write_bytes(content)
    return str(path.relative_to(folder)), (f"checkpoint {newest.name}",)


def _empty_step(folder, drawn):
    name = drawn.choice([name for name in "1239" if not (folder / "checkpoints" / name).exists()])
    (folder / "checkpoints" / name).mkdir()
    return f"checkpoints/{name}", (f"checkpoint {name}", f"checkpoints/{name}")


def _put_file(folder, drawn):
    name = drawn.choice(FOLDERS)
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).write_bytes(b"")
    return name, ()


def _put_folder(folder, drawn):
    name = drawn.choice(FILES)
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    return name, ()


def _break_link(folder, drawn):
    name = drawn.choice((*FILES, *FOLDERS))
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(folder / "nowhere")
    return name, ()


def _empty_folder(folder, drawn):
    name = drawn.choice(("checkpoints", "model"))
    shutil.rmtree(folder / name)
    (folder / name).mkdir()
    return name, ("taken again",)


KINDS = {
    "JSON cut": _cut_json,
    "no JSON object": _replace_json,
    "a field gone or of another kind": _drop_field,
    "a line cut": _edit_lines(_cut_line),
    "the last line cut": _edit_lines(_cut_last_line),
    "garbage between lines": _edit_lines(_put_garbage),
    "a line doubled": _edit_lines(_double_line),
    "lines swapped": _edit_lines(_swap_lines),
    "a line gone": _edit_lines(_drop_line),
    "a value of a line gone": _edit_lines(_change_line(_drop_value)),
    "a value of a line of another kind": _edit_lines(_change_line(_change_value)),
    "arrays damaged": _damage_arrays,
    "an array gone or short": _drop_array,
    "a step's folder renamed": _rename_step,
    "a checkpoint damaged": _damage_checkpoint,
    "a step's folder empty": _empty_step,
    "a file in a folder's place": _put_file,
    "a folder in a file's place": _put_folder,
    "a broken link": _break_link,
    "a folder emptied": _empty_folder,
}
