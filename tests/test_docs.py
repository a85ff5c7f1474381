"""The documents are true: every command runs, every link leads somewhere, and the account of the code is of
this code."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from oligo_ad import config
from tests.builders import CONF
from tests.commands import Workplace, furnish, rule_of
from tests.documents import DOCUMENTS, README, ROOT, blocks, commands

DESIGN = ROOT / "docs" / "design.md"
LONGEST_README = 200
RUNS = [command for command in commands() if re.match(r"(python|accelerate launch) run\.py", command)]
# Sweeps compose one configuration a trial, and a model of one's own needs its folder.
COMPOSED = [command for command in RUNS if " -m" not in command and " --config-dir" not in command]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return furnish(tmp_path_factory.mktemp("documents"))


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_documents_runs(workplace: Workplace, command: str) -> None:
    rule_of(command)(workplace, command)


@pytest.mark.slow
@pytest.mark.parametrize(
    "document", [one for one in DOCUMENTS if blocks(one, "python")], ids=lambda one: one.name
)
def test_every_python_example_runs(workplace: Workplace, document: Path) -> None:
    for example in blocks(document, "python"):
        (workplace.folder / "example.py").write_text(example + "print(len(table))")
        assert int(workplace.python("example.py").split()[-1]) > 0


@pytest.mark.parametrize("command", COMPOSED)
def test_every_run_of_the_documents_is_understood(command: str) -> None:
    words = shlex.split(command)
    overrides = words[words.index("run.py") + 1 :]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config.read(compose("config", overrides=[word for word in overrides if not word.startswith("--")]))


def test_the_readme_is_a_first_page() -> None:
    assert len(README.read_text().splitlines()) <= LONGEST_README


def test_a_command_without_a_rule_is_noticed() -> None:
    with pytest.raises(AssertionError, match="no rule"):
        rule_of("python guess.py")


def links(document: Path) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", document.read_text())


def anchors(document: Path) -> set[str]:
    """What `#…` may follow the name of a document: its headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: one.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in links(document):
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def named_paths(document: Path) -> set[str]:
    """Files and folders of the repository, or of the package, that a document names in a line."""
    prose = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.M | re.S)
    roots = "conf|docs|tests|oligo_ad|benchmarks|hydra_plugins"
    return set(re.findall(rf"`((?:{roots})/[\w./]*|[\w/]+\.py)`", prose)) - {"conf/model/NAME.yaml"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: one.name)
def test_every_file_that_is_named_exists(document: Path) -> None:
    absent = [path for path in named_paths(document) if not (ROOT / path).exists()]
    assert not [path for path in absent if not (ROOT / "oligo_ad" / path).exists()]


def test_every_document_is_linked_from_the_readme() -> None:
    named = {(README.parent / link.partition("#")[0]).resolve() for link in links(README)}
    assert set(DOCUMENTS) - {README} <= named


def tree() -> set[str]:
    """The files that the tree of docs/design.md names."""
    (block,) = blocks(DESIGN, "")
    found: set[str] = set()
    folders: list[str] = []
    for line in block.splitlines():
        name, depth = line.split()[0], (len(line) - len(line.lstrip())) // 2
        folders = [*folders[:depth], name]
        found.add("".join(folders))
    return found


def files() -> Iterator[str]:
    """What the tree must name: code and configuration."""
    for folder in ("conf", "oligo_ad", "hydra_plugins", "benchmarks", "tests"):
        for file in (ROOT / folder).rglob("*.*"):
            if file.suffix in (".py", ".yaml") and file.name != "__init__.py":
                yield str(file.relative_to(ROOT))


def test_the_tree_names_every_file_and_no_other() -> None:
    assert not set(files()) - tree()
    assert not [path for path in tree() if not (ROOT / path).exists()]


def floors() -> list[str]:
    """The folders of the package, the highest first, as docs/design.md lists them."""
    section = DESIGN.read_text().partition("## Floors")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)/`", section, re.M)


def imported_folders(file: Path) -> set[str]:
    """Which folders of the package a module imports from."""
    nodes = ast.walk(ast.parse(file.read_text()))
    names = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.split(".")[1] for name in names if name.startswith("oligo_ad.")}


def test_every_folder_imports_from_those_below_it_only() -> None:
    order = floors()
    package = ROOT / "oligo_ad"
    assert set(order) == {file.parent.name for file in package.glob("*/__init__.py")}
    for height, folder in enumerate(order):
        for file in (package / folder).rglob("*.py"):
            above = imported_folders(file) & set(order[:height])
            assert not above, f"{file.relative_to(ROOT)} imports from {', '.join(above)}"
