"""Files and folders that are written whole or not at all, and the checksums and keys of what is kept.

The only place with a lock, a write that ends in a rename, a checksum of files, or a hash of code.
"""

import ast
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from importlib.util import resolve_name
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from oligo_ad.errors import UserError

PARTIAL = ".partial"  # follows the name of a file or folder that is not finished
MANIFEST = "manifest.json"
ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "PyYAML"}
# Modules that check or report: no value of a result depends on them.
NOT_HASHED = {
    f"oligo_ad.{name}" for name in ("checking", "components", "config", "errors", "progress", "threads")
}


# Locks


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file or folder, after waiting for it. The parent folder is made.

    Raises:
        OSError: the folder cannot be written; the caller words the message.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        yield


@contextmanager
def claimed(folder: Path, message: str, advice: str = "") -> Iterator[None]:
    """Make a folder and keep every other process out of it, without waiting.

    Args:
        folder: one that only one process may work in.
        message: for the user, when another process works there.
        advice: what the user can do, about that or a folder that cannot be written.

    Raises:
        UserError: another process works in the folder, or it cannot be written.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(f"{message} {advice}".strip()) from None
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}. {advice}".strip()) from None
    try:
        yield
    finally:
        (folder / ".lock").unlink(missing_ok=True)
        lock.release()


# Whole or not at all


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """A path to write a file or a folder to, which becomes `path` when the block ends without an error.

    Everything is on the disk by then. If the block raises, what it has written is removed. A folder at `path`
    must not exist yet, and one process at a time may write: hold a lock where several could.
    """
    staging = path.with_name(path.name + PARTIAL)
    remove(staging)
    try:
        staging.touch()
        mode = staging.stat().st_mode
        remove(staging)
        yield staging
        if staging.is_file():
            # safetensors lets the owner alone read what it writes, whatever the umask.
            staging.chmod(mode)
        _flush(staging)
        staging.replace(path)
    finally:
        remove(staging)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with published(path) as staging:
        # Names in another encoding than the locale's reach Python as lone surrogates: their bytes go back.
        staging.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON that any reader accepts (NaN becomes null), whole or not at all."""
    write_text(path, json.dumps(_without_nan(content), indent=1, allow_nan=False))


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Wait until a file, or all files of a folder, are on the disk."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb+") as opened:
                os.fsync(opened)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Checksums


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """SHA-256 of some bytes, in hexadecimal: processors compute it faster than the newer digests."""
    digested = hashlib.sha256()
    for part in parts:
        digested.update(part)
    return digested.hexdigest()


def checksum(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def checksums(files: list[Path]) -> dict[str, str]:
    """SHA-256 of some files of one folder, by name."""
    with ThreadPoolExecutor() as pool:
        return dict(zip((file.name for file in files), pool.map(checksum, files), strict=True))


def seal(folder: Path, facts: dict[str, Any]) -> None:
    """Write the manifest of a folder: the checksum of every file in it, and some facts."""
    manifest = {"files": checksums(sorted(folder.iterdir())), **facts}
    write_json(folder / MANIFEST, {**manifest, "manifest": _checksum_of(manifest)})


def sealed_facts(folder: Path) -> dict[str, Any]:
    """The facts in the manifest of a folder.

    Raises:
        OSError, ValueError, KeyError: a file of the folder is missing or changed since it was sealed.
    """
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if manifest.pop("manifest") != _checksum_of(manifest):
        raise ValueError(f"{MANIFEST} changed since it was written")
    written = manifest.pop("files")
    found = checksums([folder / name for name in written])
    if wrong := [name for name in written if found[name] != written[name]]:
        raise ValueError(f"{', '.join(wrong)} changed since it was written")
    return dict(manifest)


def _checksum_of(manifest: dict[str, Any]) -> str:
    return digest([json.dumps(manifest, sort_keys=True).encode()])


# Code


def code_of(*modules: str, apart_from: tuple[str, ...] = ()) -> str:
    """SHA-256 of the code of some of this package's modules and of all that they import of it.

    The versions of other packages that these import count, and so does Python's. Comments and docstrings do
    not, nor do modules that only check or report (`NOT_HASHED`). A table beside a module (*.csv.gz) counts as
    its code where the code names it.

    Args:
        modules: full names, such as `oligo_ad.data.cohort`; they are read, not imported.
        apart_from: packages whose code does not count, because what it makes is hashed itself.
    """
    sources = _sources(modules, apart_from)
    parts = [version.encode() for version in _versions(sources)]
    for module in sorted(sources):
        file, statements = _file_of(module), sources[module].statements
        parts.append(f"{module}\n{statements}".encode())
        parts += [t.read_bytes() for t in sorted(file.parent.glob("*.csv.gz")) if t.name in statements]
    return digest(parts)


def modules_of(*modules: str, apart_from: tuple[str, ...] = ()) -> list[str]:
    """The names of the modules whose code `code_of` hashes."""
    return sorted(_sources(modules, apart_from))


class Code(NamedTuple):
    """The code of a module: `statements`, as text without docstrings; `imports`, each as (dots, module, names
    taken from it)."""

    statements: str
    imports: tuple[tuple[int, str, tuple[str, ...]], ...]


def _sources(modules: Iterable[str], apart_from: tuple[str, ...]) -> dict[str, Code]:
    """The code of some modules, and of all of this package that they import."""
    found: dict[str, Code] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found.keys() | NOT_HASHED and module.rpartition(".")[0] not in apart_from:
            found[module] = _code(_file_of(module).read_bytes())
            waiting += filter(_is_module, _imported(module, found[module]))
    return found


def _versions(sources: dict[str, Code]) -> Iterator[str]:
    """Python and the packages that some modules import, each with its version."""
    yield f"python {sys.version_info.major}.{sys.version_info.minor}"
    names = {name.partition(".")[0] for module, code in sources.items() for name in _imported(module, code)}
    for name in sorted(names - sys.stdlib_module_names - {"oligo_ad"}):
        with suppress(metadata.PackageNotFoundError):  # not installed, or by another name
            yield f"{name} {metadata.version(DISTRIBUTIONS.get(name, name))}"


def _imported(module: str, code: Code) -> Iterator[str]:
    """What a module imports, wherever in its code."""
    package = module if _file_of(module).name == "__init__.py" else module.rpartition(".")[0]
    for dots, source, names in code.imports:
        source = resolve_name("." * dots + source, package)
        members = (f"{source}.{name}" for name in names)
        yield from (member if _is_module(member) else source for member in members) if names else [source]


def _is_module(name: str) -> bool:
    return name.split(".")[0] == "oligo_ad" and _file_of(name).exists()


def _file_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache  # a run asks for the code of the same modules several times
def _code(text: bytes) -> Code:
    tree, imports = ast.parse(text), list[tuple[int, str, tuple[str, ...]]]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, False):
            del node.body[0]
    return Code(ast.dump(tree), tuple(imports))
