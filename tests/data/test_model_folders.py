"""Files of model folders: what a folder holds instead, and JSON files that can't be read."""

import json
import os

import pytest

from nft_jax.data.model_folders import describe_contents, read_json_object

OTHER_FOLDERS = {
    "LoRA": (["adapter_config.json", "adapter_model.safetensors"], "merge_and_unload().save_pretrained('OUTPUT')"),
    "GGUF": (["README.md", "a.gguf", "b.gguf"], "config.model.path={folder}/a.gguf"),
    "cache of the hub": (["blobs/x", "snapshots/0a1/config.json"], "config.model.path={folder}/snapshots/0a1"),
    "verl actor": (["model_world_size_8_rank_0.pt", "huggingface/config.json"], "--local_dir {folder} --target_dir"),
    "verl step": (["actor/model_world_size_8_rank_0.pt", "data.pt"], "--local_dir {folder}/actor --target_dir"),
    "verl run": (["global_step_9/actor/model_world_size_8_rank_0.pt"], "--local_dir {folder}/global_step_9/actor"),
    "DeepSpeed": (["global_step9/mp_rank_00_model_states.pt"], "zero_to_fp32.py"),
    "workdir": (["fingerprint.json", "config.json", "model/config.json"], "config.base={folder}"),
    "packed": (["config.json.gz", "model.safetensors.gz"], "gunzip {folder}/*.gz"),
    "pickles": (["pytorch_model.bin"], "pytorch_model.bin, and only safetensors are read"),
    "old pickles": (["consolidated.00.pth"], "consolidated.00.pth, and only safetensors are read"),
    "one too high": (["SmolLM2/config.json"], "config.model.path={folder}/SmolLM2"),
    "checkpoints": (["checkpoint-500/config.json"], "config.model.path={folder}/checkpoint-500"),
    "nothing": ([], "hf download OWNER/NAME --local-dir {folder}"),
}


@pytest.mark.parametrize("name", OTHER_FOLDERS)
def test_describe_contents_says_what_to_do(tmp_path, name):
    files, advice = OTHER_FOLDERS[name]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"{}")
    assert advice.format(folder=tmp_path) in describe_contents(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32"])
def test_read_json_object_refuses_other_encodings_with_the_way_back(tmp_path, encoding):
    path = tmp_path / "config.json"
    path.write_text('{"a": "é"}', encoding)
    with pytest.raises(ValueError, match=r"config.json is in utf-.*p.write_text\(p.read_text\(") as raised:
        read_json_object(path)
    code = str(raised.value).split('python -c "')[1].removesuffix('"')
    exec(code)
    assert read_json_object(path) == {"a": "é"}


HOSTILE = {
    "deep": b'{"a":' * 200_000,
    "deep list": b"[" * 2_000_000,
    "long number": b'{"a": 1' + b"0" * 100_000 + b"}",
    "cut": b'{"a": [1, 2',
    "binary": bytes(range(256)),
    "list": b"[1]",
    "empty": b"",
    "one key twice": b'{"a": 1, "b": 2, "a": 1}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_read_json_object_refuses_hostile_files(tmp_path, name):
    path = tmp_path / "config.json"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(ValueError, match="config.json"):
        read_json_object(path)


def test_read_json_object_refuses_a_huge_file_unread(tmp_path):
    path = tmp_path / "config.json"
    with open(path, "wb") as file:
        os.truncate(file.fileno(), 2**40)
    with pytest.raises(ValueError, match="1099511627776 bytes, more than any such file"):
        read_json_object(path)


def test_read_json_object_reads_what_is_usual(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"a": 1}))
    assert read_json_object(path) == {"a": 1}
