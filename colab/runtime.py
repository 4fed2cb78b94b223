"""Prepares the runtime of a notebook, in its first cell: %run colab/runtime.py [install]

With `install` it installs the package and keeps the runtime's own jax, which fits its accelerator: pip gets the
versions of jax and its parts as constraints. If the package can't be installed with them, the extra for the
accelerator replaces them. Then it prints the devices of the notebook's commands. The notebook itself computes on the
CPU, because a process that uses an accelerator leaves nothing of it to the commands that it starts.
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
    """Installs the package if `words` contain "install", and prints the devices.

    Raises:
      RuntimeError: if jax does not find the runtime's accelerator.
    """
    machine = find_accelerator()
    if "install" in words:
        install(machine)
    # The verifier's callback needs jax's CPU backend on every platform.
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms and "cpu" not in platforms.split(","):
        os.environ["JAX_PLATFORMS"] = f"{platforms},cpu"
    # The notebook's commands use the Python that runs the notebook.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    sys.path.insert(0, str(ROOT))
    (ROOT / "runs").mkdir(exist_ok=True)
    print(f"the commands of this notebook have {describe_devices(find_devices(), machine)}")

    import jax

    jax.config.update("jax_platforms", "cpu")


def find_accelerator() -> str:
    """Returns what the machine has, whether or not jax can use it: "tpu", "cuda" or "cpu"."""
    if shutil.which("nvidia-smi"):
        return "cuda"
    chips = *Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")
    return "tpu" if chips else "cpu"


def pins() -> list[str]:
    """Returns the installed jax and its parts as constraints for pip."""
    return sorted(f"{one.name}=={one.version}" for one in distributions() if JAX.fullmatch(one.name))


def install(machine: str) -> None:
    """Installs the package, if possible with the runtime's own jax.

    Raises:
      CalledProcessError: if pip fails.
    """
    kept, extra = pins(), accelerator_extra(machine)
    constraints = Path("jax_of_this_runtime.txt")
    constraints.write_text("\n".join(kept) + "\n")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--editable"]
    if kept and not subprocess.run([*pip, str(ROOT), "--constraint", str(constraints)]).returncode:
        return
    print(f"the package can't be installed with {', '.join(kept) or 'no jax'}: installing {extra or 'its own jax'}")
    subprocess.run([*pip, f"{ROOT}{extra}"], check=True)


def accelerator_extra(machine: str) -> str:
    """Returns the extra of setup.py with the jax for an accelerator; "" for CPUs."""
    cuda = "[cuda13]" if any("cuda13" in pin for pin in pins()) else "[cuda12]"
    return {"tpu": "[tpu]", "cuda": cuda, "cpu": ""}[machine]


def find_devices() -> list[str]:
    """Returns the kinds of jax's devices, from a process that ends and so releases them."""
    code = "import jax; print(*(f'{d.platform}: {d.device_kind}' for d in jax.devices()), sep='\\n')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()


def describe_devices(devices: list[str], machine: str) -> str:
    """Puts the devices into words.

    Raises:
      RuntimeError: if they are CPUs although the machine has an accelerator, unless JAX_PLATFORMS is "cpu".
    """
    missing = machine != "cpu" and all(one.startswith("cpu") for one in devices)
    if missing and os.environ.get("JAX_PLATFORMS") != "cpu":
        raise RuntimeError(
            f"this runtime has an accelerator ({machine}), but its jax ({', '.join(pins()) or 'none'}) finds only "
            f"CPUs: restart the session and run this cell again; or run pip install -e '.{accelerator_extra(machine)}' "
            f"in {ROOT}; or set JAX_PLATFORMS=cpu to use CPUs"
        )
    return ", ".join(devices)


if __name__ == "__main__":
    main(sys.argv[1:])
