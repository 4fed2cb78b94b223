"""Reading files of a Hugging Face model folder, with errors that say how to download the folder again."""

import json
from pathlib import Path
from typing import Any


def download_hint(folder: Path) -> str:
    """Returns the sentence that says how a model of the Hugging Face hub is downloaded into `folder`."""
    return f"A model of the Hugging Face hub is downloaded by: hf download OWNER/NAME --local-dir {folder}"


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file whose value is an object.

    Raises:
      ValueError: if the file is not valid JSON or its value is not an object.
    """
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a JSON {type(value).__name__}, not an object {{…}}; download it again")
    return value
