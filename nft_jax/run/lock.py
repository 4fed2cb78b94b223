"""The lock of a run's folder: one run at a time writes there.

Two files hold it. The kernel locks `.lock` for as long as the process lives: on the disk of one machine this is exact.
`lock.json` names the holder, for messages, and for folders that several machines share. There the holder gives a sign
of life every `BEAT_SECONDS`, and another machine takes the lock over after `SILENT_SECONDS` without one; machines need
no common clock for that. On the holder's own machine the number and the start of its process tell whether it lives.

A shared folder has no exact lock: of two machines that start within `SETTLE_SECONDS` the later one may notice only
after that time, and a run that slept for longer than `SILENT_SECONDS` may find its folder taken over; it then ends.
"""

import errno
import json
import os
import secrets
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

from nft_jax.files import atomically, json_text, lock_file, unlock_file
from nft_jax.run import remote_workdir

GUARD, RECORD = remote_workdir.LOCKS
BEAT_SECONDS = 15.0
SILENT_SECONDS = 60.0
SETTLE_SECONDS = 2.0
_TRIES = 3
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_LOCAL = ("apfs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "hfs", "overlay", "tmpfs", "ufs", "xfs", "zfs")


class Holder(NamedTuple):
    """Who holds a folder.

    Attributes:
      token: Names one holding.
      place: Where `pid` counts: a host since its start, and its namespace of processes.
      started: When the process began, by its kernel; a later process may get the same number.
      since: When it took the folder.
    """

    token: str = ""
    place: str = ""
    host: str = "an unknown host"
    pid: int = 0
    started: str = ""
    since: str = "an unknown time"
    command: str = ""

    @classmethod
    def here(cls) -> "Holder":
        """Returns this process as a holder."""
        return cls(
            token=secrets.token_hex(8),
            place=_place(),
            host=socket.gethostname(),
            pid=os.getpid(),
            started=_start_of(os.getpid()),
            since=time.strftime("%Y-%m-%d %H:%M:%S %Z"),
            command=shlex.join(sys.orig_argv)[:400],
        )

    @property
    def is_running(self) -> bool:
        """Whether the process, which must be one of this place, still runs."""
        return bool(self.started) and self.started == _start_of(self.pid)

    def __str__(self) -> str:
        command = "".join(letter if letter.isprintable() else "?" for letter in self.command)
        return f"process {self.pid} on {self.host} since {self.since}: {command}"


class WorkdirLock:
    """The lock of one folder, held by this process from `acquire` to `release`.

    Args:
      folder: The folder; of a run in a bucket, its local mirror.
      name: Names it in messages; by default the flag that gave it.
      end: Is called, in another thread, when another run has taken the folder over.
    """

    def __init__(self, folder: Path, name: str = "", end: Callable[[], None] = lambda: os._exit(1)):
        self.folder, self.name, self._end = folder, name or f"--workdir={folder}", end
        self._record = remote_workdir.storage_folder(folder) / RECORD
        self._is_remote = remote_workdir.is_remote(folder)
        self._guard: int | None = None
        self._holder: Holder | None = None
        self._released = threading.Event()

    def __enter__(self) -> "WorkdirLock":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Takes the lock, unless this process holds it already; a holder that is gone loses it.

        Raises:
          ValueError: if the folder is in use, with its holder, or can't be written.
        """
        try:
            fault = self.claim()
        except Exception as error:  # for a bucket, its library may raise anything
            raise ValueError(f"{self.name} can't be written: {error}") from error
        if fault:
            raise ValueError(fault)

    def claim(self) -> str:
        """Takes the lock as `acquire` does; returns who has it instead, "" for nobody.

        Raises:
          OSError: if the folder can't be written; for one in a bucket, anything else.
        """
        if self._holder is not None:
            return ""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            for _ in range(_TRIES):
                # A program that looks whether the file is locked keeps it for a moment.
                if (guard := lock_file(self.folder / GUARD)) is not None:
                    break
                time.sleep(0.1)
            self._guard, locks = guard, True
            if guard is None:
                return self._in_use(self._read_holder() or Holder())
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            locks = False
        try:
            fault = self._take(is_exact=locks and not self._is_remote and _is_local(self.folder))
        except BaseException:
            self._drop_guard()
            raise
        if fault:
            self._drop_guard()
        return fault

    def release(self) -> None:
        """Gives the lock back, if this process has it."""
        self._released.set()
        holder, self._holder = self._holder, None
        try:
            if holder is not None and self._token() == holder.token:
                self._record.unlink()
        except Exception as error:
            print(f"{self._record} can't be removed: {error}", file=sys.stderr, flush=True)
        self._drop_guard()

    def _take(self, *, is_exact: bool) -> str:
        """Writes this process into the record, unless another holder lives; returns who does, "" for nobody."""
        before = self._read_holder()
        if before is not None and not is_exact and (fault := self._check_gone(before)):
            return fault
        if before is not None:
            print(f"{self.name}: its last run has ended without giving it back ({before})", flush=True)
        holder = Holder.here()
        self._write(holder)
        if not is_exact:
            # Another machine may have written at the same time; the last one has it.
            time.sleep(SETTLE_SECONDS)
            if self._token() != holder.token:
                return self._in_use(self._read_holder() or Holder())
            print(
                f"{self.name} may be shared by machines: of two that start within {SETTLE_SECONDS:g} s both may begin, "
                f"and one that sleeps for {SILENT_SECONDS:g} s loses the folder; it ends when it notices",
                flush=True,
            )
            threading.Thread(target=self._beat, args=(holder,), name="lock", daemon=True).start()
        self._holder = holder
        return ""

    def _check_gone(self, holder: Holder) -> str:
        """Returns who has the folder if this holder lives, or gives signs of life to this machine; "" if it doesn't."""
        if holder.place == _place():
            return self._in_use(holder) if holder.is_running else ""
        print(
            f"{self.name} is marked as in use by {holder}\nwaiting {SILENT_SECONDS:g} s for a sign of life of it (if "
            f"you know that it is gone: delete {self._record}, and start again)",
            flush=True,
        )
        first, deadline = self._sign(), time.monotonic() + SILENT_SECONDS
        while time.monotonic() < deadline:
            time.sleep(SILENT_SECONDS / 60)
            sign = self._sign()
            if sign is None:
                return ""
            if sign != first:
                return self._in_use(self._read_holder() or holder)
        return ""

    def _beat(self, holder: Holder) -> None:
        """Gives signs of life until `release`, or until another run has the lock."""
        number = 0
        while not self._released.wait(BEAT_SECONDS):
            try:
                token, number = self._token(), number + 1
                if token and token != holder.token:
                    words = f"{self.name} was taken over by {self._read_holder()}; this run ends"
                    print(words, file=sys.stderr, flush=True)
                    self._end()
                    return
                if not token or self._is_remote:
                    self._write(holder, number)
                else:
                    os.utime(self._record)  # works on a full disk too
            except Exception:
                continue  # the disk or the bucket is out of reach for a moment

    def _in_use(self, holder: Holder) -> str:
        return (
            f"{self.name} is in use by {holder}\nwait for its end, or stop it (on {holder.host}: kill {holder.pid}); "
            f"another --workdir is free"
        )

    def _write(self, holder: Holder, beat: int = 0) -> None:
        with atomically(self._record) as temporary:
            temporary.write_text(json_text(holder._asdict() | {"beat": beat}, 2) + "\n", encoding="utf-8")

    def _sign(self) -> tuple | None:
        """Returns what changes with each sign of life; None without a record."""
        try:
            text = self._record.read_bytes()
            return text, None if self._is_remote else os.stat(self._record).st_mtime_ns
        except FileNotFoundError:
            return None

    def _token(self) -> str | None:
        holder = self._read_holder()
        return None if holder is None else holder.token

    def _read_holder(self) -> Holder | None:
        """Returns the holder by the record, with unknown parts where it is no record; None without one."""
        try:
            if not self._record.exists():
                return None
            values = json.loads(self._record.read_bytes())
            known = {name: values[name] for name in Holder._fields}
            return Holder(**known) if _fits(known) else Holder()
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, RecursionError):
            return Holder()

    def _drop_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            unlock_file(self.folder / GUARD, guard)


def _fits(values: dict) -> bool:
    return all(isinstance(value, type(default)) for value, default in zip(values.values(), Holder(), strict=True))


def _place() -> str:
    """Returns what is the same for two processes if the number of one means the same to the other."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    started = boot.read_text(encoding="utf-8").strip() if boot.exists() else ""
    return " ".join([socket.gethostname(), started, os.readlink(namespace) if started else ""])


def _start_of(pid: int) -> str:
    """Returns when a process began, in a unit that no change of the clock moves; "" if it does not run."""
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return ""
        stat = Path(f"/proc/{pid}/stat")
        # Field 22; the second one, the program's name, may hold blanks and parentheses.
        if not stat.exists():
            return f"{process.create_time():.0f}"
        return stat.read_bytes().rpartition(b")")[2].split()[19].decode()
    except (psutil.Error, OSError):
        return ""


def _is_local(folder: Path) -> bool:
    """Returns whether a folder is on a disk of this machine, as far as is known."""
    kinds = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    real = folder.resolve()
    return next((kinds[place] for place in (real, *real.parents) if place in kinds), "") in _LOCAL
