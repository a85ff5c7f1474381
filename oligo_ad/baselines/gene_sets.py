"""Sets of genes from a GMT file, the format of MSigDB: a name, a description and genes, separated by tabs."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from oligo_ad.errors import UserError

log = logging.getLogger(__name__)

FEWEST = 5  # genes of a set that the file must have
LARGEST = 64 << 20  # bytes of a GMT file; all of MSigDB has 20 MB


@dataclass(frozen=True)
class GeneSets:
    """Sets of genes by name: the places of their genes in the file's."""

    places: dict[str, np.ndarray]

    def scores(self, expression_DG: np.ndarray) -> np.ndarray:
        """The mean expression of each set's genes [donors, sets]."""
        return np.stack([expression_DG[:, own].mean(1) for own in self.places.values()], axis=1)


NO_SETS = GeneSets({})


def read_gene_sets(path: str, genes: pd.DataFrame) -> GeneSets:
    """The sets of a GMT file, of those genes that the cohort has.

    Args:
        path: of the file.
        genes: symbol and ensembl of the cohort's genes, in its order.

    Raises:
        UserError: it is no GMT file, or no set has enough of its genes in the cohort.
    """
    sets = _parsed(Path(path).expanduser())
    place: dict[str, int] = {}
    for column in ("symbol", "ensembl"):
        for number, name in enumerate(genes[column]):
            if isinstance(name, str):
                place.setdefault(name.partition(".")[0] if column == "ensembl" else name, number)
    found = {name: sorted({place[gene] for gene in own if gene in place}) for name, own in sets.items()}
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


def _parsed(path: Path) -> dict[str, list[str]]:
    """Genes by name of the set; a name that is there twice has the genes of both."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST >> 20} MB")
        lines = path.read_text(encoding="utf-8").splitlines()
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
    except (OSError, ValueError) as error:
        raise UserError(f"evaluation.gene_sets={path} is no GMT file: {error}.") from None
    return sets
