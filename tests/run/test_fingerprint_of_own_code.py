"""The code of a user's own, which a run keeps as it keeps its settings."""

import dataclasses
import sys

import pytest

from helpers.experiments import small
from nft_jax.config import Config, Phase, to_dict
from nft_jax.run.fingerprint import check_same, own_code


def fingerprint(config: Config) -> dict:
    return {"config": to_dict(config), "problems": {}, "origin": {}, "own_code": own_code(config)}


@pytest.mark.parametrize("setting", ["loss.name", "loss.nft.omega", "verify.grader", "data.template"])
def test_check_same_refuses_other_code_of_a_users_own(tmp_path, monkeypatch, capsys, setting):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_of_user", raising=False)
    (tmp_path / "own.jinja").write_text("{{ problem }}")
    (tmp_path / "own_of_user.py").write_text("import beside_own\n\ndef mine(a, b=1):\n    return a\n")
    (tmp_path / "beside_own.py").write_text("")
    name = str(tmp_path / "own.jinja") if setting == "data.template" else "own_of_user:mine"

    def given():
        section, *_, last = setting.split(".")
        changes = {"options": {}} if section == "loss" else {}
        changes |= {"options": {last: name}} if last == "omega" else {last: name}
        values = dataclasses.replace(getattr(small(), section), **changes)
        return fingerprint(dataclasses.replace(small(), **{section: values}))

    before = given()
    assert set(before["own_code"]) == {setting}
    check_same(before, given(), "runs/here")
    # A comment in a neighbor counts as well: what is compared is the source.
    with open(tmp_path / ("own.jinja" if setting == "data.template" else "beside_own.py"), "a") as file:
        file.write("# more")
    with pytest.raises(ValueError) as caught:
        check_same(before, given(), "runs/here")
    (fault,) = str(caught.value).split("\n")[1:-1]
    both = before["own_code"][setting], given()["own_code"][setting]
    change = f"the code of config.{setting}={name!r}: the run has that of digest {both[0]}, given {both[1]}"
    assert fault == f"  {change} (config.record.allow_other_code=true goes on with it)"
    assert capsys.readouterr().out == ""
    allowed = given()
    allowed["config"]["record"]["allow_other_code"] = True
    check_same(before, allowed, "runs/here")
    assert capsys.readouterr().out == f"config.record.allow_other_code:\n  {change}\n"
    check_same(before, given(), "runs/here", varied=[setting])
    check_same({key: value for key, value in before.items() if key != "own_code"}, given(), "runs/here")
    if setting != "data.template":
        check_same(before, given(), "runs/here", Phase.WARM_START)


def test_the_code_of_a_second_grader_may_change(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    values = []
    for text in ("x = 1", "x = 2"):
        (tmp_path / "second_of_user.py").write_text(text)
        values.append(fingerprint(small(verify__second_grader="second_of_user:mine")))
    assert values[0]["own_code"] != values[1]["own_code"]
    check_same(*values, "runs/here")
