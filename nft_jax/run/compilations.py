"""The programs that XLA compiles, counted by JAX's monitoring events: none may be compiled once the steps run."""

import sys
import threading
from typing import Any, NamedTuple

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
_CACHE_HIT = "/jax/compilation_cache/cache_hits"


class Program(NamedTuple):
    """A compiled program.

    Attributes:
      name: The name of its function.
      seconds: How long compiling it, or reading it from the compile cache, took.
      cached: Whether the compile cache held it.
    """

    name: str
    seconds: float
    cached: bool


class Compilations:
    """Records the programs that are compiled in this process while the context is open.

    After `finish` no program should be compiled; `report_late` prints those that are.
    """

    def __init__(self):
        self.programs: list[Program] = []
        self._hit = threading.local()  # the thread that compiles a program first gets the event of its cache hit
        self._reported: int | None = None

    def __enter__(self) -> "Compilations":
        jax.monitoring.register_event_listener(self._note_hit)
        jax.monitoring.register_event_duration_secs_listener(self._note_program)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_listener(self._note_hit)
        jax.monitoring.unregister_event_duration_listener(self._note_program)

    def finish(self) -> str:
        """Marks that all programs are compiled; returns a line that describes them."""
        self._reported = len(self.programs)
        cached = [program for program in self.programs if program.cached]
        new = [program for program in self.programs if not program.cached]
        words = f"compiled  {len(new)} programs in {_seconds(new):.1f} s"
        if cached:
            words += f"; {len(cached)} more were in the compile cache, and read in {_seconds(cached):.1f} s"
        return words

    def report_late(self, step: int) -> None:
        """Prints on stderr which programs were compiled since `finish` or the last report; `step` is the last one."""
        if self._reported is None:
            return
        late, self._reported = self.programs[self._reported :], len(self.programs)
        for program in late:
            print(
                f"step {step}: {program.name} was compiled again, in {program.seconds:.1f} s; after the first step "
                f"nothing should be (JAX_EXPLAIN_CACHE_MISSES=1 prints the reason)",
                file=sys.stderr,
                flush=True,
            )

    def _note_hit(self, event: str, **_: Any) -> None:
        if event == _CACHE_HIT:
            self._hit.now = True

    def _note_program(self, event: str, seconds: float, **more: Any) -> None:
        if event == _COMPILED:
            cached, self._hit.now = getattr(self._hit, "now", False), False
            self.programs.append(Program(str(more.get("fun_name", "a program")), seconds, cached))


def _seconds(programs: list[Program]) -> float:
    return sum(program.seconds for program in programs)
