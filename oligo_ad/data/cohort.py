"""The cohort: the nuclei of one cell type with their counts, genes and donors, before anything is fitted."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from oligo_ad.config import DataConfig
from oligo_ad.data import selection
from oligo_ad.data.donor_columns import donor_columns
from oligo_ad.data.duplicates import copies
from oligo_ad.data.genes import gene_names, gene_notes, gene_order
from oligo_ad.data.people import Grouping, check_people
from oligo_ad.data.sums import DonorSums, sum_by_donor
from oligo_ad.errors import UserError, listing
from oligo_ad.progress import progress
from oligo_ad.storage.atlas import Atlas
from oligo_ad.storage.expression import (
    TARGET,
    Expression,
    counts_word,
    find_expression,
    find_flaw,
    log_normalise,
    require,
    stored_elsewhere,
)
from oligo_ad.storage.matrix import MatrixWriter, NucleusMatrix

# Fields of `data` that a cohort depends on, besides the file itself. No field of labels is among them.
SHAPING = ("donor_key", "cell_type_key", "cell_types", "counts", "min_genes", "min_nuclei")

DOUBT = "doubt about expression"  # among what defines a cohort, where its values are uncertain


@dataclass(frozen=True)
class Cohort:
    """The nuclei of one cell type of every donor, as stored; nothing here was fitted or labelled.

    Nuclei are in the order of donor and barcode, genes in that of Ensembl id and name: what is computed
    does not depend on their order in the file.

    `matrix` [nuclei, genes], counts or log values; see `expression.content`.
    `cells`: barcode, donor, total (counts), n_genes, and for a simulated file `truth`.
    `genes`: name (unique), symbol, ensembl, and `highly_variable` where the file has it.
    `donors`: indexed by donor id, sorted; nuclei, and under `obs:NAME` the obs columns that do not vary
    within a donor; under `mean:NAME` the means over nuclei of numbers that do. `varying`: by column that
    varies within some donors, the ids of those donors.
    `kinds`: how many nuclei of each donor have each value of an obs column that describes nuclei: column,
    level, donor, nuclei. `sums`: of each gene over each donor's nuclei.
    `steps` [donors of the file, steps]: nuclei after each step. `about`: facts for the report.
    """

    matrix: NucleusMatrix
    cells: pd.DataFrame
    genes: pd.DataFrame
    donors: pd.DataFrame
    varying: dict[str, list[str]]
    kinds: pd.DataFrame
    sums: DonorSums
    steps: pd.DataFrame
    expression: Expression
    simulated: bool
    about: dict[str, str]
    notes: tuple[str, ...]

    def log_values(self, genes: np.ndarray) -> sp.csr_matrix:
        """Log-normalised expression [nuclei, len(genes)] float32, each nucleus normalised by itself."""
        values = self.matrix.columns(genes)
        if self.expression.content == "log":
            return values
        return log_normalise(values, self.cells["total"].to_numpy())

    def places_of(self, gene_names: list[str]) -> np.ndarray:
        """Where the named genes are.

        Raises:
            UserError: some are not there.
        """
        place = {name: i for i, name in enumerate(self.genes["name"])}
        if missing := [name for name in gene_names if name not in place]:
            raise UserError(f"{len(missing)} genes of the model are not in this file: {listing(missing)}.")
        return np.array([place[name] for name in gene_names], int)

    def rows_of(self, donors: Collection[str]) -> np.ndarray:
        """Rows of all nuclei of these donors, sorted."""
        return np.flatnonzero(self.cells["donor"].isin(donors).to_numpy())

    def table_of(self, donors: Collection[str]) -> pd.DataFrame:
        """`donors` of some of them: without the obs columns that vary within one of these."""
        varying = [f"obs:{name}" for name, where in self.varying.items() if not set(donors).isdisjoint(where)]
        return self.donors[self.donors.index.isin(donors)].drop(columns=varying, errors="ignore")

    def nuclei_by(self, column: str) -> pd.DataFrame:
        """Nuclei of each donor by their value of an obs column [donors, levels]; without columns where it
        does not describe nuclei, or has too many levels."""
        own = self.kinds[(self.kinds["column"] == column) & self.kinds["donor"].isin(self.donors.index)]
        counts = own.pivot(index="donor", columns="level", values="nuclei")
        return counts.reindex(self.donors.index).fillna(0).astype(int).rename_axis(columns=None)

    def of(self, donors: Collection[str]) -> "Cohort":
        """The same cohort with some donors only; the matrix is a view."""
        rows, kept = self.rows_of(donors), self.donors.index.isin(donors)
        return replace(
            self,
            matrix=self.matrix.of(rows),
            cells=self.cells.iloc[rows].reset_index(drop=True),
            donors=self.table_of(donors),
            sums=self.sums.of(kept),
        )


def build(atlas: Atlas, config: DataConfig, folder: Path) -> Cohort:
    """Select nuclei, write their rows into a folder, drop poor nuclei and donors with too few."""
    chosen = selection.select(atlas, config)
    people = check_people(atlas, chosen.donors, chosen.rows)
    expression = find_expression(atlas, config.counts)
    var = atlas.var(expression.matrix)
    writer = MatrixWriter(folder, len(var))
    total, n_genes = _write_rows(atlas, expression, chosen.rows, writer)
    _require_all(atlas, expression, chosen, n_genes)
    cells = _cells(atlas, chosen, total if expression.content == "counts" else np.nan, n_genes)
    good = _good(cells, config)
    cells = cells[good].reset_index(drop=True)
    left = cells["donor"].value_counts().reindex(chosen.steps.index, fill_value=0)
    columns, varying, kinds = donor_columns(atlas, Grouping.of(chosen.donors.of, chosen.rows[good]))
    cells = cells.sort_values(["donor", "barcode", "total", "n_genes"], kind="stable")
    order = gene_order(gene_names(var))
    matrix = writer.close(good).of(cells.index.to_numpy()).reordered(order)
    cells = cells.reset_index(drop=True)
    return Cohort(
        matrix=matrix,
        cells=cells,
        genes=gene_names(var.iloc[order]),
        donors=pd.DataFrame({"nuclei": left[left > 0]}).join(columns).rename_axis("donor"),
        varying=varying,
        kinds=kinds,
        sums=sums_of(matrix, cells, expression),
        steps=chosen.steps.assign(**{quality(config): left}),
        expression=expression,
        simulated=atlas.simulated,
        about=_about(atlas, chosen, expression),
        notes=(
            *chosen.notes,
            *people,
            *gene_notes(var),
            *expression.notes,
            *copies(matrix, cells),
            *_lost(left, chosen, config),
        ),
    )


def _cells(
    atlas: Atlas, chosen: selection.Selection, total: np.ndarray | float, n_genes: np.ndarray
) -> pd.DataFrame:
    """The table of the chosen nuclei, in the order of the file."""
    columns = {"barcode": atlas.barcodes(chosen.rows), "donor": chosen.donor}
    cells = pd.DataFrame({**columns, "total": total, "n_genes": n_genes})
    if "SIMULATED affected" in atlas.columns:
        cells["truth"] = atlas.column("SIMULATED affected", chosen.rows).to_numpy(float)
    return cells


def _about(atlas: Atlas, chosen: selection.Selection, expression: Expression) -> dict[str, str]:
    """Which file, columns and values define the cohort, for the report."""
    return {
        "file": atlas.path.name,
        "donor column": chosen.columns.donor,
        "cell type column": chosen.columns.cell_type or "none: every nucleus",
        "cell types": ", ".join(chosen.cell_types) or "all",
        "expression": expression.evidence,
    } | ({DOUBT: expression.doubt} if expression.doubt else {})


def _require_all(
    atlas: Atlas, expression: Expression, chosen: selection.Selection, n_genes: np.ndarray
) -> None:
    """Refuse a matrix that holds nothing of nuclei whose values are in another one.

    Raises:
        UserError: naming the matrices and the donors.
    """
    empty = n_genes == 0
    if not empty.any() or not (found := stored_elsewhere(atlas, expression, chosen.rows[empty])):
        return
    other, held = found
    donors = np.unique(chosen.donor[empty][held])
    complete = find_flaw(atlas, other) is None
    raise UserError(
        f"{expression.matrix} of {atlas.path.name} holds nothing of {held.sum():,} nuclei of {len(donors)} "
        f"donors ({listing(donors)}), whose values are in {other}: data sets were joined that do not all "
        f"have it. Complete it{f', or choose data.counts={counts_word(other)}' if complete else ''}."
    )


def _lost(left: pd.Series, chosen: selection.Selection, config: DataConfig) -> tuple[str, ...]:
    """The donors of whom quality control leaves nothing, as a note."""
    before = chosen.steps.iloc[:, -1]
    lost = left.index[(left == 0) & (before > 0)]
    if not len(lost):
        return ()
    return (
        f"quality control leaves nothing of {len(lost)} of {(before > 0).sum()} donors with "
        f"{before[lost].sum():,} nuclei (data.min_genes={config.min_genes}, "
        f"data.min_nuclei={config.min_nuclei}): {listing(lost)}",
    )


def quality(config: DataConfig) -> str:
    """The name of the last step, quality control."""
    return f"quality (≥ {config.min_genes} genes, ≥ {config.min_nuclei} nuclei a donor)"


def sums_of(matrix: NucleusMatrix, cells: pd.DataFrame, expression: Expression) -> DonorSums:
    """Of each gene over each donor's nuclei, which come in the order of their donors."""
    scale = TARGET / np.maximum(cells["total"].to_numpy(), 1) if expression.content == "counts" else None
    donors, donor = np.unique(cells["donor"], return_inverse=True)
    return sum_by_donor(matrix, donor, len(donors), scale)


def _write_rows(
    atlas: Atlas, expression: Expression, rows: np.ndarray, writer: MatrixWriter
) -> tuple[np.ndarray, np.ndarray]:
    """Write the chosen rows. Every value is checked, not those of a sample only.

    Returns:
        Sum and expressed genes of each nucleus.
    """
    totals, n_genes = [], []
    with progress(f"reading {expression.matrix}", len(rows), "nuclei") as advance:
        for block in atlas.rows(expression.matrix, rows, log_slower=True):
            require(block, expression, atlas.path.name)
            if expression.factor != 1:
                block.data = (block.data * expression.factor).astype(np.float32)
            writer.append(block)
            totals.append(np.asarray(block.sum(axis=1, dtype=np.float64)).ravel())
            n_genes.append(np.diff(block.indptr))
            advance(block.shape[0], block.data.nbytes + block.indices.nbytes)
    return np.concatenate(totals), np.concatenate(n_genes)


def _good(cells: pd.DataFrame, config: DataConfig) -> np.ndarray:
    """Which nuclei are rich enough, and of donors with enough of those [nuclei] bool.

    Raises:
        UserError: none is left.
    """
    rich = cells["n_genes"].to_numpy() >= max(1, config.min_genes)
    enough = cells[rich].groupby("donor").size() >= config.min_nuclei
    good: np.ndarray = rich & cells["donor"].isin(enough.index[enough]).to_numpy()
    if not good.any():
        raise UserError(lost_in_quality_control("any donor", config))
    return good


def lost_in_quality_control(lost: str, config: DataConfig) -> str:
    """The message when no nucleus of a class, or of any donor, is left."""
    return (
        f"quality control leaves no nucleus of {lost}: none with data.min_genes={config.min_genes} genes in "
        f"a donor of data.min_nuclei={config.min_nuclei} nuclei. Lower them."
    )
