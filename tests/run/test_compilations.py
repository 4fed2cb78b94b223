"""`Compilations`: it records each program by name, and reports those that are compiled too late."""

import jax
import numpy as np

from nft_jax.run.compilations import Compilations


def grow(x):
    return x + 1


def test_compilations_record_each_program_once_with_its_name(capsys):
    with Compilations() as compilations:
        grown = jax.jit(grow)
        for _ in range(2):
            grown(np.ones(3, np.float32))
        names = [program.name for program in compilations.programs]
        assert len(names) == len([name for name in names if "grow" in name]) == 1
        assert compilations.programs[0].seconds > 0
        assert not compilations.programs[0].cached
        assert compilations.finish() == f"compiled  1 programs in {compilations.programs[0].seconds:.1f} s"
        grown(np.ones(3, np.float32))
        compilations.report_late(1)
    assert capsys.readouterr().err == ""
    jax.jit(grow)(np.ones(4, np.float32))
    assert len(compilations.programs) == 1


def test_compilations_report_late_prints_a_program_once(capsys):
    with Compilations() as compilations:
        grown = jax.jit(grow)
        grown(np.ones(5, np.float32))
        compilations.report_late(0)
        assert capsys.readouterr().err == ""  # nothing has ended
        compilations.finish()
        grown(np.ones(6, np.float32))
        compilations.report_late(7)
        printed = capsys.readouterr().err
        assert printed.startswith("step 7: ")
        assert "grow) was compiled again" in printed
        compilations.report_late(8)
        assert capsys.readouterr().err == ""
