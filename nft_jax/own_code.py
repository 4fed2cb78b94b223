"""Modules of a user's own (losses, graders): loading them, a digest of their source, and where an error in them is.

Grading processes load this file without the package root (`verify/pool/worker.py`), so it imports the standard library
and `names` alone.
"""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from .names import lookup, quote

_PACKAGE = "nft_jax"
_files: set[str] = set()  # of the modules that were loaded here, and of those that they import


class OwnCodeError(ValueError):
    """An error in a module of a user's own, in one sentence with its place."""


def load(name: str, kind: str) -> Callable:
    """Returns the function that "module:function" names, and imports its module.

    Args:
      kind: What it is, for errors: "loss" or "grader".

    Raises:
      ValueError: for a name of another form, an unknown function, or what is no function.
      OwnCodeError: for a module that can't be found, raises or exits.
    """
    module, _, function = name.partition(":")
    if not function.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"{kind} {quote(name)}: write 'module:function', for example 'my_package.my_module:my_{kind}'")
    _files.update(map(str, own_sources(name).values()))
    try:
        loaded = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a module that exits must not end its host in silence
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            fault = f"there is no module {error.name!r}; it must be installed, or in a folder of PYTHONPATH"
        else:
            fault = describe_error(error)
        raise OwnCodeError(f"{kind} {quote(name)} can't be imported: {fault}") from error
    there = {key: value for key, value in vars(loaded).items() if callable(value) and not key.startswith("__")}
    if function not in there and hasattr(loaded, function):
        raise ValueError(f"{kind} {quote(name)} is a {type(getattr(loaded, function)).__name__}, not a function")
    return lookup(there, function, "function", f"module {module!r}")


def register(path: str) -> None:
    """Counts a file, such as a config, as the user's own, so that errors in it are named by their place."""
    _files.add(path)


def check_call(function: Callable, name: str, kind: str, form: str) -> None:
    """Checks that a function takes two arguments.

    Args:
      form: How the function should be written.

    Raises:
      OwnCodeError: if it does not, with its place.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions in C have none
        return
    needed = {key: None for key, each in signature.parameters.items() if each.kind is each.KEYWORD_ONLY}
    try:
        signature.bind(None, None, **needed)
    except TypeError as error:
        code = getattr(inspect.unwrap(function), "__code__", None)
        place = f" ({Path(code.co_filename).name}:{code.co_firstlineno})" if code else ""
        raise OwnCodeError(
            f"{kind} {name!r}{place} has the arguments {signature}, but it is called as {form}"
        ) from error


def describe_error(error: BaseException) -> str:
    """Returns type and message of an error in one line, and where in a user's own code it arose, if it did."""
    if isinstance(error, OwnCodeError):
        return str(error)
    try:
        message = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    except Exception:  # an error of others may be unable to say what it is
        message = ""
    kind = "it exits, by SystemExit" if isinstance(error, SystemExit) else type(error).__name__
    place = _find_place(error)
    return f"{kind}{': ' * bool(message)}{message}{', in ' * bool(place)}{place}"


def is_own(error: BaseException) -> bool:
    """Returns whether a user's own code raised an error, or called what raised it."""
    return bool(_find_place(error))


def _find_place(error: BaseException) -> str:
    """Returns FILE:LINE of the innermost call in a user's own code; "" if there is none."""
    if isinstance(error, SyntaxError) and error.filename in _files:
        return f"{error.filename}:{error.lineno}"
    calls = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [f"{file}:{line}" for file, line in calls if file in _files]
    return own[-1] if own else ""


def digest(name: str) -> str | None:
    """Returns 16 hexadecimal digits of the source of "module:function" and of its neighbors that it imports.

    None where the name is none of this form, or its module is not found or a part of this package.
    """
    sources = own_sources(name)
    content = hashlib.sha256()
    for module, path in sorted(sources.items()):
        content.update(f"{module}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return content.hexdigest()[:16] if sources else None


def own_sources(name: str) -> dict[str, Path]:
    """Returns the files of "module:function" and of what it imports from the same folder, by module; imports nothing.

    Of an installed module, or one inside a package, the others are those of its package.
    """
    module, colon, _ = name.partition(":")
    top = module.partition(".")[0]
    if not colon or top == _PACKAGE or not all(part.isidentifier() for part in module.split(".")):
        return {}
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # it is loaded, and was not found by the usual way
        spec = None
    if spec is None or not spec.has_location:
        return {}
    folder = Path(spec.origin).parent.parent if spec.submodule_search_locations else Path(spec.origin).parent
    installed = folder in {Path(sysconfig.get_path(each)) for each in ("purelib", "platlib", "stdlib")}
    found, waiting = {}, [module]
    while waiting:
        for each, path in _find_files(waiting.pop(), str(folder)):
            if each in found or each.partition(".")[0] == _PACKAGE:
                continue
            found[each] = path
            imports = _read_imports(path, each if path.name == "__init__.py" else each.rpartition(".")[0])
            waiting += [target for target in imports if not installed or target.partition(".")[0] == top]
    return found


def _find_files(module: str, folder: str) -> Iterator[tuple[str, Path]]:
    """Yields the files of a module and of the packages that it is in, as far as they are found below a folder."""
    places, name = [folder], ""
    for part in module.split("."):
        name = f"{name}.{part}".removeprefix(".")
        spec: ModuleSpec | None = PathFinder.find_spec(name, places)
        if spec is None:
            return
        if spec.has_location and spec.origin:
            yield name, Path(spec.origin)
        places = spec.submodule_search_locations
        if places is None:
            return


def _read_imports(path: Path, package: str) -> list[str]:
    """Returns the names of modules that a file of a package may import; some are functions instead."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # no Python source, or not yet
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) + 1 - node.level]) if node.level else ""
            base = ".".join(filter(None, (base, node.module)))
            names += [base, *(".".join(filter(None, (base, alias.name))) for alias in node.names)]
    return [name for name in names if name]
