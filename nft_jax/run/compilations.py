"""What XLA compiles, as JAX's own events tell it: each program once, and none once the steps have begun."""

import sys
import threading
from typing import Any, NamedTuple

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
_FOUND = "/jax/compilation_cache/cache_hits"


class Compiled(NamedTuple):
    """A program that XLA made ready: its name, the seconds it took, and whether the compile cache had it."""

    name: str
    seconds: float
    found: bool


class Compilations:
    """Notes what is compiled in this process while it is open; from `end` on, each further program is one too many."""

    def __init__(self):
        self.programs: list[Compiled] = []
        self._found = threading.local()  # a program is found by the thread that asks for it, before it is said ready
        self._said: int | None = None

    def __enter__(self) -> "Compilations":
        jax.monitoring.register_event_listener(self._note_found)
        jax.monitoring.register_event_duration_secs_listener(self._note_compiled)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_listener(self._note_found)
        jax.monitoring.unregister_event_duration_listener(self._note_compiled)

    def end(self) -> str:
        """Whatever there is to compile has been; what that was, in words."""
        self._said = len(self.programs)
        found = [program for program in self.programs if program.found]
        new = [program for program in self.programs if not program.found]
        words = f"compiled  {len(new)} programs in {_seconds(new):.1f} s"
        if found:
            words += f"; {len(found)} more were in the compile cache, and read in {_seconds(found):.1f} s"
        return words

    def check(self, step: int) -> None:
        """Says on stderr what has been compiled since `end`, or since this said so last."""
        if self._said is None:
            return
        late, self._said = self.programs[self._said :], len(self.programs)
        for program in late:
            print(
                f"step {step}: {program.name} was compiled again, in {program.seconds:.1f} s; after the first step "
                f"nothing should be (JAX_EXPLAIN_CACHE_MISSES=1 says why it was)",
                file=sys.stderr,
                flush=True,
            )

    def _note_found(self, event: str, **_: Any) -> None:
        if event == _FOUND:
            self._found.now = True

    def _note_compiled(self, event: str, seconds: float, **more: Any) -> None:
        if event == _COMPILED:
            found, self._found.now = getattr(self._found, "now", False), False
            self.programs.append(Compiled(str(more.get("fun_name", "a program")), seconds, found))


def _seconds(programs: list[Compiled]) -> float:
    return sum(program.seconds for program in programs)
