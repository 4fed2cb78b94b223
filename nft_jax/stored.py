"""The config file of a run that exists: `--config=DIR/config.json`, or no `--config` at all beside `--workdir=DIR`."""

from ml_collections import ConfigDict

from nft_jax import config


def get_config(path: str) -> ConfigDict:
    """The configuration stored at `path`, for the command line to change."""
    return config.stored(path)
