"""Sets of genes are read from GMT files as MSigDB writes them, and from nothing else."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from oligo_ad.baselines.gene_sets import GeneSets, read_gene_sets
from oligo_ad.errors import UserError

GENES = pd.DataFrame(
    {"symbol": [f"G{n}" for n in range(9)] + [None], "ensembl": [f"ENSG{n}.2" for n in range(10)]}
)


def gmt(folder: Path, *lines: str) -> str:
    (folder / "sets.gmt").write_text("\n".join(lines), encoding="utf-8")
    return str(folder / "sets.gmt")


def test_genes_are_found_by_symbol_and_by_ensembl_id_once_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = gmt(
        tmp_path,
        "BIG\thttps://example.org\tG0\tG1\tENSG2\tENSG3\tENSG9\tG0\tUNKNOWN",
        "",
        "SMALL\tna\tG0\tG1\tG2\tG3\t",
    )
    with caplog.at_level(logging.WARNING):
        found = read_gene_sets(path, GENES)
    assert {name: own.tolist() for name, own in found.places.items()} == {"BIG": [0, 1, 2, 3, 9]}
    assert "1 of 2 gene sets are left out" in caplog.text
    values, every = np.arange(20.0).reshape(2, 10), np.ones(10, bool)
    assert found.scores(values, every).tolist() == [[3.0], [13.0]]


def test_genes_that_are_not_expressed_do_not_count() -> None:
    sets = GeneSets({"some": np.array([0, 2, 3]), "silent": np.array([3]), "other": np.array([1])})
    values, expressed = np.array([[1.0, 2.0, 5.0]]), np.array([True, True, True, False])
    assert sets.scores(values, expressed).tolist() == [[3.0, 0.0, 2.0]]


def test_the_version_of_an_ensembl_id_and_odd_marks_in_a_description_do_not_matter(tmp_path: Path) -> None:
    path = gmt(tmp_path, "SET\tone\u2028two\x0b\tENSG0.7\tENSG1\tG2\tG3\tG4\r")
    assert read_gene_sets(path, GENES).places["SET"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "lines",
    [["NAME\tdescription"], ["no tabs at all"], ["\tna\tG1"], [], ["\x00\x01\tb"], ["{'json': 1}"]],
)
def test_what_is_no_gmt_file_is_refused(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(UserError, match="is no GMT file"):
        read_gene_sets(gmt(tmp_path, *lines), GENES)


def test_a_file_that_is_not_there_or_of_another_species_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no GMT file"):
        read_gene_sets(str(tmp_path / "none.gmt"), GENES)
    for odd in (str(tmp_path), "/dev/zero", "~nobody_of_this_name/sets.gmt", "a\0b"):
        with pytest.raises(UserError, match="is no GMT file"):
            read_gene_sets(odd, GENES)
    (tmp_path / "bytes.gmt").write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match="is no GMT file"):
        read_gene_sets(str(tmp_path / "bytes.gmt"), GENES)
    with pytest.raises(UserError, match="another species"):
        read_gene_sets(gmt(tmp_path, "SET\tna\tMbp\tPlp1\tMog\tCnp\tMag"), GENES)
