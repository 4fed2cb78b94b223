"""Random damage to a Hugging Face model folder: one fault a folder, as broken downloads, editors and enemies make them.

What no reader can notice is left out: another finite weight, or another setting that is a proper one.
"""

import json
import math
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from helpers.model_folders import random_tensors, write_model, write_tokenizer

JSON = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
NO_OBJECTS = (b"", b"[]", b"null", b'"text"', b"\xff\xfe\0", b"[" * 50_000, b'{"a":' * 50_000, b"\0" * 300)
# None is a proper value of any JSON field.
NO_VALUES = (
    *(-1, 2**64, 10**400, 1e300, math.nan, math.inf, -math.inf),
    *("", "x" * 9999, "\0", [], [1, [2]], {}, {"a": {"b": 1}}, [[]] * 999),
)
# They do not end, take all memory, leave their sandbox, or are none.
TEMPLATES = (
    "{% for i in range(10**9) %}{% for j in range(10**9) %}{% endfor %}{% endfor %}",
    "{{ 'x' * 10**10 }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('false') }}",
    "{% for m in messages %}",
    "{{ raise_exception('no') }}",
    "{{ 1 // 0 }}",
    "{{ " + "(" * 9999 + ")" * 9999 + " }}",
    "",
)


def write_folder(folder: Path) -> Path:
    """Writes a proper folder, with its weights in two files; returns it."""
    write_tokenizer(write_model(folder, random_tensors(), files=2))
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    return folder


def damage_model(folder: Path, drawn: random.Random, kind: str) -> str:
    """Damages one thing in a folder; returns what."""
    return f"{kind}: {KINDS[kind](folder, drawn)}"


def _choose_file(folder: Path, drawn: random.Random) -> Path:
    return drawn.choice([path for path in sorted(folder.iterdir()) if path.name != "README.md"])


def _cut(folder, drawn):
    path = _choose_file(folder, drawn)
    os.truncate(path, drawn.choice((0, drawn.randrange(path.stat().st_size), path.stat().st_size - 1)))
    return f"{path.name} to {path.stat().st_size} bytes"


def _replace_content(folder, drawn):
    path, content = _choose_file(folder, drawn), drawn.choice([*NO_OBJECTS, drawn.randbytes(3000)])
    path.write_bytes(content)
    return f"{path.name} by {content[:20]!r}"


def _encode(folder, drawn):
    path, encoding = folder / drawn.choice(JSON), drawn.choice(["utf-16", "utf-32", "utf-8-sig"])
    path.write_bytes(path.read_text().encode(encoding))
    return f"{path.name} in {encoding}"


def _make_socket(path):
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(path.parent)  # the name of a socket is short
        bound.bind(path.name)
        os.chdir(here)


OTHER_KINDS: dict[str, Callable[[Path], Any]] = {
    "a pipe": os.mkfifo,
    "a folder": os.mkdir,
    "a socket": _make_socket,
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nothing": lambda path: path.symlink_to(path.with_name("nothing")),
    "a link to zeros": lambda path: path.symlink_to("/dev/zero"),
    "a link to its parent": lambda path: path.symlink_to(path.parent),
}


def _change_kind(folder, drawn):
    path, kind = _choose_file(folder, drawn), drawn.choice(list(OTHER_KINDS))
    path.unlink()
    OTHER_KINDS[kind](path)
    return f"{path.name} is {kind}"


def _add_pipe(folder, drawn):
    """Beside the files, under a name that readers know."""
    names = "special_tokens_map.json added_tokens.json vocab.json merges.txt tokenizer.model processor_config.json"
    names += " model.safetensors preprocessor_config.json additional_chat_templates chat_template.json params.json"
    name, kind = drawn.choice(names.split()), drawn.choice(list(OTHER_KINDS))
    OTHER_KINDS[kind](folder / name)
    return f"{name} is {kind}"


def _remove(folder, drawn):
    path = _choose_file(folder, drawn)
    path.unlink()
    return path.name


def _grow(folder, drawn):
    """A file of 180 MB, in which the rest is zeros."""
    path = _choose_file(folder, drawn)
    os.truncate(path, 180_000_000)
    return path.name


def _places(value: Any, path: tuple = ()) -> list[tuple]:
    """Returns the path of each part of a JSON value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for name, part in parts for place in [(*path, name), *_places(part, (*path, name))]]


def _edit_json(path: Path, drawn: random.Random) -> str:
    values = json.loads(path.read_text())
    *outer, last = place = drawn.choice(_places(values))
    inner = values
    for name in outer:
        inner = inner[name]
    inner[last] = drawn.choice(NO_VALUES)
    path.write_text(json.dumps(values))
    return f"{path.name} has {str(inner[last])[:30]!r} at {place}"


def _put_value(folder, drawn):
    return _edit_json(folder / drawn.choice((*JSON, "model.safetensors.index.json")), drawn)


def _put_template(folder, drawn):
    template = drawn.choice(TEMPLATES)
    if drawn.random() < 0.5:
        (folder / "chat_template.jinja").write_text(template)
    else:
        (folder / "chat_template.jinja").unlink()
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))
    return template[:40]


def _move_weights(folder, drawn):
    index = folder / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    name = drawn.choice(sorted(values["weight_map"]))
    values["weight_map"][name] = file = drawn.choice(["../x", "/etc/passwd", "", ".", "\0", "nothing", "x" * 300])
    index.write_text(json.dumps(values))
    return f"{name} in {file[:20]!r}"


def _edit_header(edit: Callable) -> Callable:
    def act(folder, drawn):
        path = drawn.choice(sorted(folder.glob("*.safetensors")))
        content = path.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        name = drawn.choice(sorted(header.keys() - {"__metadata__"}))
        made = edit(header, name, drawn)
        text = (made if isinstance(made, str) else json.dumps(header)).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])
        return f"{path.name}, {name}: {str(header.get(name))[:100]}"

    return act


def _put_entry(header, name, drawn):
    field = drawn.choice(("dtype", "shape", "data_offsets"))
    if field == "dtype":
        header[name][field] = drawn.choice(("F64", "I8", "BF16", "F8_E4M3", "", "x" * 999, *NO_VALUES))
    else:
        place = drawn.randrange(len(header[name][field]))
        header[name][field][place] = drawn.choice((0, True, 0.5, 2**31, *NO_VALUES))


def _drop_entry(header, name, drawn):
    if drawn.random() < 0.5:
        del header[name]
    else:
        del header[name][drawn.choice(sorted(header[name]))]


def _rename_entry(header, name, drawn):
    header[drawn.choice(("x", f"{name}.x", name.upper(), "model.layers.1000000.mlp.up_proj.weight"))] = header.pop(name)


def _double_entry(header, name, drawn):
    """Twice in one header, with other numbers the second time."""
    other = drawn.choice(sorted(header.keys() - {name, "__metadata__"}))
    return f"{json.dumps(header)[:-1]}, {json.dumps(name)}: {json.dumps(header[other])}}}"


def _put_metadata(header, _, drawn):
    header["__metadata__"] = drawn.choice((None, *NO_VALUES))


def _set_header_length(folder, drawn):
    path = drawn.choice(sorted(folder.glob("*.safetensors")))
    length = drawn.choice((0, 1, 2**31, 2**63, 2**64 - 1, drawn.randrange(2**16)))
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    return f"{path.name} of {length} bytes"


def _spoil_weights(folder, drawn):
    tensors = random_tensors()
    name = drawn.choice(sorted(tensors))
    flat = tensors[name].reshape(-1)
    flat[drawn.randrange(flat.size)] = drawn.choice((np.nan, np.inf, -np.inf))
    write_model(folder, tensors, files=2)
    return name


KINDS: dict[str, Callable[[Path, random.Random], str]] = {
    "a file cut": _cut,
    "other content": _replace_content,
    "another encoding": _encode,
    "a file of another kind": _change_kind,
    "another kind of file beside": _add_pipe,
    "a file gone": _remove,
    "a file of 180 MB": _grow,
    "a value in JSON": _put_value,
    "a chat template": _put_template,
    "a name in the index": _move_weights,
    "an entry of a header": _edit_header(_put_entry),
    "an entry of a header gone": _edit_header(_drop_entry),
    "an entry of a header renamed": _edit_header(_rename_entry),
    "an entry of a header doubled": _edit_header(_double_entry),
    "metadata of a header": _edit_header(_put_metadata),
    "the length of a header": _set_header_length,
    "a weight that is not finite": _spoil_weights,
}
