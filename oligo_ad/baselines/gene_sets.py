"""Sets of genes from a GMT file, the format of MSigDB: a name, a description and genes, separated by tabs."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from oligo_ad.errors import UserError

log = logging.getLogger(__name__)

FEWEST = 5  # genes of a set that the file must have
LARGEST = 64 << 20  # bytes of a GMT file; all of MSigDB has 20 MB


@dataclass(frozen=True)
class GeneSets:
    """Sets of genes by name: the places of their genes in the file's."""

    places: dict[str, np.ndarray]

    def scores(self, expression_DE: np.ndarray, expressed_G: np.ndarray) -> np.ndarray:
        """The mean expression of each set's expressed genes [donors, sets]; 0 of a set that has none.

        Args:
            expression_DE: standardised, of the expressed genes.
            expressed_G: which of all genes these are.
        """
        members = self._members(len(expressed_G))[:, expressed_G]
        size = np.maximum(np.asarray(members.sum(axis=1)).ravel(), 1)
        found: np.ndarray = (members @ expression_DE.T).T / size
        return found

    def _members(self, n_genes: int) -> sp.csr_matrix:
        """1 where a set [sets] has a gene [n_genes]."""
        genes = np.concatenate(list(self.places.values()))
        ends = np.cumsum([0, *map(len, self.places.values())])
        return sp.csr_matrix((np.ones(len(genes)), genes, ends), shape=(len(self.places), n_genes))


NO_SETS = GeneSets({})


def read_gene_sets(path: str, genes: pd.DataFrame) -> GeneSets:
    """The sets of a GMT file, of those genes that the cohort has.

    Args:
        path: of the file.
        genes: symbol and ensembl of the cohort's genes, in its order.

    Raises:
        UserError: it is no GMT file, or no set has enough of its genes in the cohort.
    """
    sets = _parsed(path)
    place: dict[str, int] = {}
    for column in ("symbol", "ensembl"):
        for number, name in enumerate(genes[column]):
            if isinstance(name, str):
                place.setdefault(name.partition(".")[0] if column == "ensembl" else name, number)
    found = {name: _places(own, place) for name, own in sets.items()}
    kept = {name: np.array(own) for name, own in found.items() if len(own) >= FEWEST}
    if not kept:
        raise UserError(
            f"evaluation.gene_sets={path}: none of its {len(sets)} sets has {FEWEST} genes in this file. "
            "Genes are matched by symbol, then by Ensembl id: is it of another species?"
        )
    if len(kept) < len(sets):
        log.warning(
            "%d of %d gene sets are left out: fewer than %d of their genes are in this file",
            len(sets) - len(kept), len(sets), FEWEST,
        )  # fmt: skip
    return GeneSets(kept)


def _places(genes: list[str], place: dict[str, int]) -> list[int]:
    """Sorted places of those genes that are there, each once; the version of an Ensembl id does not count."""
    names = (gene if gene in place else gene.partition(".")[0] for gene in genes)
    return sorted({place[name] for name in names if name in place})


def _parsed(path: str) -> dict[str, list[str]]:
    """Genes by name of the set; a name that is there twice has the genes of both."""
    try:
        file = Path(path).expanduser()
        # The size of a pipe or a device says nothing of what is read from it.
        if file.exists() and not file.is_file():
            raise ValueError("it is no file")
        if file.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST >> 20} MB")
        # Other marks that Python takes for the end of a line can be in a description.
        lines = file.read_text(encoding="utf-8").split("\n")
        sets: dict[str, list[str]] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            name, *rest = line.split("\t")
            if len(rest) < 2 or not name.strip():
                raise ValueError(f"line {number} is no name, description and genes, separated by tabs")
            sets.setdefault(name.strip(), []).extend(gene.strip() for gene in rest[1:] if gene.strip())
        if not sets:
            raise ValueError("it holds no set")
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"evaluation.gene_sets={path} is no GMT file: {error}.") from None
    return sets
