"""One of several processes that have found one another and then wait, with no collective to fail: how do they end?

python waits_for_ever.py FOLDER NAME: writes FOLDER/NAME_PROCESS when all are there; where FOLDER/abort is, it aborts.
"""

import os
import sys
import time
from pathlib import Path

from nft_jax.processes import distributed

HEARTBEAT_SECONDS = 10


def main(folder: Path, name: str) -> None:
    launch = distributed.read_launch(dict.fromkeys(distributed.VARIABLES), os.environ)
    distributed.start(launch, wait_seconds=60, heartbeat_seconds=HEARTBEAT_SECONDS)
    (folder / f"{name}_{launch.process}").touch()
    while True:
        if (folder / f"{name}_abort_{launch.process}").exists():
            os.abort()
        time.sleep(0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
