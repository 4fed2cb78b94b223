"""The stand-ins of the launch scripts' tests."""

import pytest

from helpers.launch import Stand


@pytest.fixture
def stand(tmp_path):
    return Stand(tmp_path)
