"""The settings reference: the page in configs/ is up to date, and `--help` names every setting with its value."""

from pathlib import Path

from nft_jax import config_files
from nft_jax.config import Config, default, settings_of
from nft_jax.config.reference import format_value, help_text, page
from nft_jax.losses import LOSSES, default_options

PAGE = Path(__file__).parents[2] / "configs" / "settings.md"


def test_page_is_the_one_in_configs():
    assert PAGE.read_text() == page(), "run: python -m nft_jax.config > configs/settings.md"


def test_every_setting_has_a_note():
    assert [setting.name for setting in settings_of(Config) if not setting.note] == []


def test_help_text_has_every_setting_with_its_value_and_default():
    text = help_text(config_files.config("tiny"), "--config=tiny")
    lines = [line.strip() for line in text.splitlines()]
    for setting in settings_of(Config):
        if setting.name != "loss.options":
            assert any(line.startswith(f"{setting.name}=") for line in lines), setting.name
    for loss in LOSSES:
        expected = [f"loss.{loss}.{option}={format_value(value)}" for option, value in default_options(loss).items()]
        assert [line for line in expected if line not in lines] == []
    assert "rollout.max_answer_tokens=16" in lines
    assert "included (1 or more; default: 64)" in text
    assert "optimizer.learning_rate=0.0003" in lines


def test_help_text_gives_no_default_for_a_value_that_is_the_default():
    assert "default:" not in help_text(default(), "the defaults")


def test_written_is_what_the_command_line_takes():
    assert [format_value(value) for value in (True, 3, 1e-6, 0.30000000000000004, "", "a b")] == [
        *("true", "3", "1e-06", "0.30000000000000004", "''", "a b")
    ]
