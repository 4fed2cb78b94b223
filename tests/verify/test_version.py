"""`version`: a digest of exactly the sources that decide verdicts."""

import subprocess
import sys
from pathlib import Path

from helpers import lenient_grader
from nft_jax.verify import version as version_module
from nft_jax.verify.version import version

ROOT = Path(__file__).resolve().parents[2]


def test_version_digests_the_sources_that_graders_import():
    code = r"""
import sys
from nft_jax.verify.pool.worker import _load_grade_module
grading = _load_grade_module()
grading.preload("math")
for grader in grading.GRADERS:
    assert grading.grade(r"\boxed{2\sin x\cos x}", r"\sin 2x", grader=grader).status != "error"
names = {name: module.__file__ for name, module in sys.modules.items() if name.startswith("_nft_jax.verify.")}
print(*sorted(file for file in names.values()), sep="\n")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    folder = ROOT / "nft_jax" / "verify"
    imported = {str(Path(file).relative_to(folder)) for file in done.stdout.split()}
    assert imported == set(version_module._SOURCES)


def test_version_changes_with_a_source_and_names_libraries(tmp_path, monkeypatch):
    before = version("math")
    assert before.startswith("math ")
    assert "python-flint " in before
    for name in version_module._SOURCES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((version_module._HERE / name).read_bytes())
    monkeypatch.setattr(version_module, "_HERE", tmp_path)
    assert version("math") == before
    (tmp_path / "math" / "relations.py").write_text("changed")
    assert version("math") != before


def test_version_of_a_custom_grader_digests_its_module():
    name = f"{lenient_grader.__name__}:at_least"
    assert version(name).startswith(f"{name} ")
    assert version(name) != version("nft_jax.verify.coin:coin").replace("nft_jax.verify.coin:coin", name)
