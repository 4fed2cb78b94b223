"""What the first cell of a notebook runs: %run colab/runtime.py [install]

With `install` the package is installed beside the jax that the runtime came with, which knows its accelerator: pip is
given its version, and that of all that belongs to it, as constraints. Only where the package can't be had with it does
the extra for the accelerator replace it. Then it says which devices the commands of the notebook have. The notebook
itself computes on the CPU: a process that has an accelerator leaves nothing of it to the commands that it starts.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
JAX = re.compile(r"jax|jaxlib|libtpu|jax[-_]cuda\d+[-_](plugin|pjrt)", re.IGNORECASE)


def main(words: list[str]) -> None:
    """Installs if asked to, and prints the devices.

    Raises:
      RuntimeError: when the runtime has an accelerator that jax doesn't see.
    """
    machine = accelerator()
    if "install" in words:
        install(machine)
    # The verifier's callback needs jax's CPU backend, wherever the rest runs.
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms and "cpu" not in platforms.split(","):
        os.environ["JAX_PLATFORMS"] = f"{platforms},cpu"
    # A notebook's `python` is to be the one that runs it.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    sys.path.insert(0, str(ROOT))
    (ROOT / "runs").mkdir(exist_ok=True)
    print(f"the commands of this notebook have {checked(devices(), machine)}")

    import jax

    jax.config.update("jax_platforms", "cpu")


def accelerator() -> str:
    """What the machine has, whether or not jax can use it: "tpu", "cuda" or "cpu"."""
    if shutil.which("nvidia-smi"):
        return "cuda"
    chips = *Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")
    return "tpu" if chips else "cpu"


def pins() -> list[str]:
    """The jax that is there, and the parts that belong to it, as pip's constraints."""
    return sorted(f"{one.name}=={one.version}" for one in distributions() if JAX.fullmatch(one.name))


def install(machine: str) -> None:
    """Installs the package, with the runtime's own jax wherever it can be.

    Raises:
      CalledProcessError: when pip fails.
    """
    kept, extra = pins(), extra_of(machine)
    constraints = Path("jax_of_this_runtime.txt")
    constraints.write_text("\n".join(kept) + "\n")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--editable"]
    if kept and not subprocess.run([*pip, str(ROOT), "--constraint", str(constraints)]).returncode:
        return
    print(f"the package can't be had with {', '.join(kept) or 'no jax'}: installing what {extra or 'setup.py'} names")
    subprocess.run([*pip, f"{ROOT}{extra}"], check=True)


def extra_of(machine: str) -> str:
    """The extra of setup.py that has the machine's own jax; "" for CPUs."""
    cuda = "[cuda13]" if any("cuda13" in pin for pin in pins()) else "[cuda12]"
    return {"tpu": "[tpu]", "cuda": cuda, "cpu": ""}[machine]


def devices() -> list[str]:
    """The kinds of devices that jax finds, asked in a process that then lets them go."""
    ask = "import jax; print(*(f'{d.platform}: {d.device_kind}' for d in jax.devices()), sep='\\n')"
    return subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.splitlines()


def checked(found: list[str], machine: str) -> str:
    """The devices in words.

    Raises:
      RuntimeError: when these are CPUs, and the machine has more, unless JAX_PLATFORMS asks for CPUs.
    """
    unseen = machine != "cpu" and all(one.startswith("cpu") for one in found)
    if unseen and os.environ.get("JAX_PLATFORMS") != "cpu":
        raise RuntimeError(
            f"this runtime has an accelerator ({machine}), but its jax ({', '.join(pins()) or 'none'}) finds only "
            f"CPUs: restart the session and run this cell again; or pip install -e '.{extra_of(machine)}' in {ROOT}; "
            f"or set JAX_PLATFORMS=cpu, if CPUs are what you want"
        )
    return ", ".join(found)


if __name__ == "__main__":
    main(sys.argv[1:])
