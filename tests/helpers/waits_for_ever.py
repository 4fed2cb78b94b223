"""One of several processes that connect and then wait forever, with no collective that could fail.

python waits_for_ever.py FOLDER NAME: writes FOLDER/NAME_PROCESS when all are connected; aborts when a file
FOLDER/NAME_abort_PROCESS exists.
"""

import os
import resource
import sys
import time
from pathlib import Path

from nft_jax.processes import distributed
from nft_jax.processes.ending import exit_on_process_loss

HEARTBEAT_SECONDS = 10


def main(folder: Path, name: str) -> None:
    # An abort leaves no image of the memory in the folder of the sources.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    launch = distributed.read_launch(dict.fromkeys(distributed.VARIABLES), os.environ)
    with exit_on_process_loss():
        distributed.start(launch, wait_seconds=60, heartbeat_seconds=HEARTBEAT_SECONDS)
        (folder / f"{name}_{launch.process}").touch()
        while True:
            if (folder / f"{name}_abort_{launch.process}").exists():
                os.abort()
            time.sleep(0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
