"""Files are whole or not there, one process works on them at a time, and keys follow the code."""

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from oligo_ad.errors import UserError
from oligo_ad.storage import shelf

# Locks


def test_a_lock_is_held_for_the_block_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/thing"
    with shelf.locked(path), pytest.raises(Timeout), FileLock(f"{path}.lock", timeout=0):
        pass
    with FileLock(f"{path}.lock", timeout=0):
        pass


def add_one(path: Path, times: int) -> None:
    for _ in range(times):
        with shelf.locked(path):
            path.write_text(str(int(path.read_text()) + 1))


def test_processes_that_wait_for_a_lock_lose_no_update(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add_one, args=(path, 50)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert path.read_text() == "100"


def test_a_claimed_folder_is_refused_to_others_and_free_again_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "a/run"
    for _ in range(2):
        with shelf.claimed(folder, "another run is at work.", "Choose another."):
            with (
                pytest.raises(UserError, match=r"another run is at work\. Choose another\."),
                shelf.claimed(folder, "another run is at work.", "Choose another."),
            ):
                raise AssertionError("claimed twice")
            (folder / "result").touch()
        assert [file.name for file in folder.iterdir()] == ["result"]


def test_a_claim_ends_with_an_error_of_the_work(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), shelf.claimed(tmp_path, "in use"):
        raise ZeroDivisionError
    with shelf.claimed(tmp_path, "in use"):
        pass


def test_a_folder_that_cannot_be_made_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"file/run cannot be written: .* Choose another\."),
        shelf.claimed(tmp_path / "file/run", "in use", "Choose another."),
    ):
        raise AssertionError("claimed")


# Whole or not at all


def put_file(path: Path, content: str) -> None:
    path.write_text(content)


def put_folder(path: Path, content: str) -> None:
    path.mkdir()
    (path / "inside").mkdir()
    (path / "inside/file").write_text(content)


def content_of(path: Path) -> str:
    return (path / "inside/file" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("put", [put_file, put_folder])
def test_what_is_published_appears_whole_when_the_block_ends(
    tmp_path: Path, put: Callable[[Path, str], None]
) -> None:
    path = tmp_path / "cohort"
    put(tmp_path / "cohort.partial", "of a process that was killed")
    with shelf.published(path) as staging:
        put(staging, "new")
        assert staging.parent == tmp_path
        assert not path.exists()
    assert content_of(path) == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("put", [put_file, put_folder])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_breaks_off_leaves_nothing(
    tmp_path: Path, put: Callable[[Path, str], None], error: type[BaseException]
) -> None:
    def broken_off() -> None:
        with shelf.published(tmp_path / "cohort") as staging:
            put(staging, "half")
            raise error

    with pytest.raises(error):
        broken_off()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_there_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    shelf.write_text(path, "old")

    def broken_off() -> None:
        with shelf.published(path) as staging:
            staging.write_text("half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        broken_off()
    assert path.read_text() == "old"
    shelf.write_text(path, "new")
    assert path.read_text() == "new"


def test_a_folder_does_not_take_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "cohort"
    put_folder(path, "old")
    with pytest.raises(OSError, match="not empty"), shelf.published(path) as staging:
        put_folder(staging, "new")
    assert content_of(path) == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_of_one_stem_are_published_side_by_side(tmp_path: Path) -> None:
    with shelf.published(tmp_path / "a.csv") as csv, shelf.published(tmp_path / "a.html") as html:
        csv.write_text("csv")
        html.write_text("html")
    assert [(tmp_path / f"a.{name}").read_text() for name in ("csv", "html")] == ["csv", "html"]


def test_json_has_null_for_what_is_no_number(tmp_path: Path) -> None:
    content = {"a": float("nan"), "b": [1.5, (float("inf"),)], "c": {1: "text", "d": None}}
    shelf.write_json(tmp_path / "a.json", content)
    read = json.loads((tmp_path / "a.json").read_text())
    assert read == {"a": None, "b": [1.5, [None]], "c": {"1": "text", "d": None}}


# Checksums


def test_a_sealed_folder_gives_back_its_facts_until_a_file_changes(tmp_path: Path) -> None:
    (tmp_path / "values").write_bytes(b"0123")
    shelf.seal(tmp_path, {"shape": [2, 2], "notes": []})
    assert shelf.sealed_facts(tmp_path) == {"shape": [2, 2], "notes": []}
    (tmp_path / "values").write_bytes(b"0133")
    with pytest.raises(ValueError, match="values changed since it was written"):
        shelf.sealed_facts(tmp_path)
    (tmp_path / "values").unlink()
    with pytest.raises(FileNotFoundError):
        shelf.sealed_facts(tmp_path)


def test_facts_that_were_changed_are_noticed(tmp_path: Path) -> None:
    shelf.seal(tmp_path, {"simulated": False})
    manifest = tmp_path / shelf.MANIFEST
    manifest.write_text(manifest.read_text().replace("false", "true"))
    with pytest.raises(ValueError, match=r"manifest\.json changed since it was written"):
        shelf.sealed_facts(tmp_path)


# Code

PACKAGE = {
    "__init__.py": "",
    "a.py": '"""A."""\nimport json\n\nimport numpy\n\nfrom oligo_ad import b\n',
    "b.py": "from oligo_ad.room.c import VALUE\nfrom oligo_ad.errors import UserError\n",
    "errors.py": "import oligo_ad.apart\n",
    "apart.py": "",
    "room/__init__.py": "",
    "room/c.py": "def late():\n    import oligo_ad.room.d\n\nfrom . import e\n",
    "room/d.py": 'import oligo_ad.a\nTABLE = "table.csv.gz"\n',
    "room/e.py": '"""Not other.csv.gz."""\nVALUE = 1\n',
    "room/table.csv.gz": "1",
    "room/other.csv.gz": "1",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of its own, read in the place of this one."""
    for name, content in PACKAGE.items():
        file = tmp_path / "oligo_ad" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    monkeypatch.setattr(shelf, "ROOT", tmp_path)
    return tmp_path / "oligo_ad"


def test_the_code_of_a_module_is_its_own_and_what_it_imports_however_it_is_written(package: Path) -> None:
    imported = ["oligo_ad.a", "oligo_ad.b", "oligo_ad.room.c", "oligo_ad.room.d", "oligo_ad.room.e"]
    assert shelf.modules_of("oligo_ad.a") == imported
    assert shelf.modules_of("oligo_ad.room.e") == ["oligo_ad.room.e"]
    assert shelf.modules_of("oligo_ad.room.e", "oligo_ad.apart") == ["oligo_ad.apart", "oligo_ad.room.e"]


@pytest.mark.parametrize("name", ["a.py", "b.py", "room/c.py", "room/d.py", "room/e.py", "room/table.csv.gz"])
def test_another_code_or_table_is_another_hash(package: Path, name: str) -> None:
    before = shelf.code_of("oligo_ad.a")
    with (package / name).open("a") as file:
        file.write("\nOTHER = 2\n")
    assert shelf.code_of("oligo_ad.a") != before


@pytest.mark.parametrize("name", ["errors.py", "apart.py", "room/__init__.py", "room/other.csv.gz"])
def test_what_a_module_does_not_depend_on_leaves_its_hash_alone(package: Path, name: str) -> None:
    before = shelf.code_of("oligo_ad.a")
    with (package / name).open("a") as file:
        file.write("\nOTHER = 2\n")
    assert shelf.code_of("oligo_ad.a") == before


def test_another_version_of_an_imported_package_is_another_hash(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (package / "room/e.py").open("a") as file:
        file.write("\nimport json\nimport numpy.linalg\nimport not_installed\n")
    before = shelf.code_of("oligo_ad.a")
    known = shelf.metadata.version
    monkeypatch.setattr(shelf.metadata, "version", lambda name: "99.0" if name == "torch" else known(name))
    assert shelf.code_of("oligo_ad.a") == before
    monkeypatch.setattr(shelf.metadata, "version", lambda name: "99.0" if name == "numpy" else known(name))
    assert shelf.code_of("oligo_ad.a") != before


def test_words_and_the_place_of_the_package_leave_the_hash_alone(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shelf.code_of("oligo_ad.a")
    (package / "room/e.py").write_text('"""Other words."""\n\n# a comment\nVALUE = 1  # and one more\n')
    assert shelf.code_of("oligo_ad.a") == before
    shutil.copytree(package, tmp_path / "elsewhere/oligo_ad")
    monkeypatch.setattr(shelf, "ROOT", tmp_path / "elsewhere")
    assert shelf.code_of("oligo_ad.a") == before


def test_a_module_that_is_not_there_is_a_bug(package: Path) -> None:
    with pytest.raises(FileNotFoundError):
        shelf.code_of("oligo_ad.absent")


@pytest.mark.parametrize(
    "write", [shelf.write_text, lambda path, text: shelf.write_json(path, {text: object()})]
)
def test_what_cannot_be_written_leaves_the_text_that_was_there(
    write: Callable[[Path, str], None], tmp_path: Path
) -> None:
    file = tmp_path / "metrics.json"
    shelf.write_text(file, "what was there")
    with pytest.raises((UnicodeEncodeError, TypeError)):
        write(file, "a" * 10**5 + "\ud800")  # no encoding has the last letter
    assert file.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [file]
