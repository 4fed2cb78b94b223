"""`isolate`: what an isolated grading process cannot do, and what it can."""

import sys

import pytest

from helpers.forbidden_graders import FORBIDDEN
from helpers.hostile_pool import FOLDER
from nft_jax.verify import Pool
from nft_jax.verify.pool.isolation import isolate

seccompy = pytest.importorskip("seccompy", reason="the extra [isolation] is not installed")
if not seccompy.supported():
    pytest.skip("this kernel has no seccomp filters", allow_module_level=True)

GRADER = "helpers.forbidden_graders:attempt"


def grade_attempts(isolation: str, folder) -> dict:
    (folder / "there").write_text("here")
    with Pool(GRADER, 2, 20.0, paths=[FOLDER], isolation=isolation) as pool:
        assert pool.isolated == (isolation != "off")
        names = [*FORBIDDEN, "compute"]
        verdicts = pool.grade([(name, str(folder)) for name in names])
        assert isolation == "off" or pool.replacements == 0
    return dict(zip(names, verdicts, strict=True))


def test_isolate_prevents_writing_opening_and_starting(tmp_path):
    verdicts = grade_attempts("required", tmp_path)
    assert verdicts.pop("compute").status == "correct"
    assert {name: verdict.status for name, verdict in verdicts.items()} == dict.fromkeys(FORBIDDEN, "error")
    reasons = {name: verdict.reason for name, verdict in verdicts.items()}
    allowed = ("PermissionError", "OSError: [Errno 38]", "ValueError: not allowed to raise maximum limit")
    assert {name: reason for name, reason in reasons.items() if not reason.startswith(allowed)} == {}
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_text() == "here"


@pytest.mark.parametrize("name", ["write", "udp", "run"])
def test_pool_without_isolation_allows_the_same(name, tmp_path):
    with Pool(GRADER, 1, 20.0, paths=[FOLDER], isolation="off") as pool:
        assert pool.grade([(name, str(tmp_path))])[0].status == "correct"


@pytest.mark.parametrize("grader", ["math", "gsm8k", "boxed_exact"])
def test_graders_need_nothing_that_isolate_forbids(grader):
    items = [(rf"#### {i} \boxed{{{text}}}", gold) for i, (text, gold) in enumerate(HARD)]
    seen = []
    for isolation in ("required", "off"):
        with Pool(grader, 2, 60.0, isolation=isolation) as pool:
            seen.append([verdict[:2] for verdict in pool.grade(items)])
    assert seen[0] == seen[1]
    assert "error" not in {status for status, _ in seen[0]}


HARD = [
    (r"\int_0^1 x^2 dx", r"\frac{1}{3}"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
    (r"\sum_{k=1}^{10} k", "55"),
    (r"\sin(\pi/3)", r"\frac{\sqrt{3}}{2}"),
    ("7", "7"),
]


def test_isolate_raises_where_it_is_required_and_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "seccompy", None)
    assert isolate("auto") is False
    with pytest.raises(RuntimeError, match="can't be isolated.*pip install"):
        isolate("required")


def test_pool_isolates_a_custom_grader_only_on_request(tmp_path):
    for isolation, isolated in (("auto", False), ("required", True)):
        with Pool(GRADER, 1, 20.0, paths=[FOLDER], isolation=isolation) as pool:
            assert pool.isolated == isolated
    with Pool("gsm8k", 1) as pool:
        assert pool.isolated
