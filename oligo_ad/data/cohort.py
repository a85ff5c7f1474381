"""The cohort: the nuclei of one cell type with their counts, genes and donors, before anything is fitted."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.utils import make_index_unique

from oligo_ad.config import DataConfig
from oligo_ad.data import selection
from oligo_ad.data.sums import DonorSums
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

    `matrix` [nuclei, genes], counts or log values; see `expression.content`.
    `cells`: barcode, donor, total (counts), n_genes, and for a simulated file `truth`.
    `genes`: name (unique), symbol, ensembl, and `highly_variable` where the file has it.
    `donors`: indexed by donor id, sorted; nuclei, and under `obs:NAME` the obs columns that do not vary
    within a donor. `varying`: by column that varies within some donors, the ids of those donors.
    `sums`: of each gene over each donor's nuclei.
    `steps` [donors of the file, steps]: nuclei after each step. `about`: facts for the report.
    """

    matrix: NucleusMatrix
    cells: pd.DataFrame
    genes: pd.DataFrame
    donors: pd.DataFrame
    varying: dict[str, list[str]]
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

    def rows_of(self, donors: Collection[str]) -> np.ndarray:
        """Rows of all nuclei of these donors, sorted."""
        return np.flatnonzero(self.cells["donor"].isin(donors).to_numpy())

    def of(self, donors: Collection[str]) -> "Cohort":
        """The same cohort with some donors only; the matrix is a view."""
        rows = self.rows_of(donors)
        varying = {name for name, where in self.varying.items() if not set(donors).isdisjoint(where)}
        kept = self.donors.index.isin(donors)
        return replace(
            self,
            matrix=self.matrix.of(rows),
            cells=self.cells.iloc[rows].reset_index(drop=True),
            donors=self.donors[kept].drop(columns=[f"obs:{name}" for name in varying]),
            sums=self.sums.of(kept),
        )


def build(atlas: Atlas, config: DataConfig, folder: Path) -> Cohort:
    """Select nuclei, write their rows into a folder, drop poor nuclei and donors with too few."""
    chosen = selection.select(atlas, config)
    expression = find_expression(atlas, config.counts)
    var = atlas.var(expression.matrix)
    donors, donor_code = np.unique(chosen.donor, return_inverse=True)
    writer, sums = MatrixWriter(folder, len(var)), DonorSums.zeros(len(donors), len(var))
    total, n_genes = _write_rows(atlas, expression, chosen.rows, donor_code, config, writer, sums)
    _require_all(atlas, expression, chosen, n_genes)
    cells = pd.DataFrame(
        {
            "barcode": atlas.barcodes(chosen.rows),
            "donor": chosen.donor,
            "total": total if expression.content == "counts" else np.nan,
            "n_genes": n_genes,
        }
    )
    if "SIMULATED affected" in atlas.columns:
        cells["truth"] = atlas.column("SIMULATED affected", chosen.rows).to_numpy(float)
    good = _good(cells, config)
    cells = cells[good].reset_index(drop=True)
    left = cells["donor"].value_counts().reindex(chosen.steps.index, fill_value=0)
    columns, varying = _donor_columns(atlas, chosen.rows[good], cells["donor"])
    return Cohort(
        matrix=writer.close(good),
        cells=cells,
        genes=gene_names(var),
        donors=pd.DataFrame({"nuclei": cells.groupby("donor").size()}).join(columns),
        varying=varying,
        sums=sums.of(np.isin(donors, cells["donor"])),
        steps=chosen.steps.assign(**{quality(config): left}),
        expression=expression,
        simulated=atlas.simulated,
        about=_about(atlas, chosen, expression),
        notes=chosen.notes + expression.notes + _lost(left, chosen, config),
    )


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


def _write_rows(
    atlas: Atlas,
    expression: Expression,
    rows: np.ndarray,
    donor: np.ndarray,
    config: DataConfig,
    writer: MatrixWriter,
    sums: DonorSums,
) -> tuple[np.ndarray, np.ndarray]:
    """Write the chosen rows, and add those rich enough to the sums of their donors (by position).

    Every value is checked, not those of a sample only. Returns sum and expressed genes of each nucleus.
    """
    totals, n_genes, first = [], [], 0
    with progress(f"reading {expression.matrix}", len(rows), "nuclei") as advance:
        for block in atlas.rows(expression.matrix, rows, log_slower=True):
            require(block, expression, atlas.path.name)
            if expression.factor != 1:
                block.data = (block.data * expression.factor).astype(np.float32)
            writer.append(block)
            totals.append(np.asarray(block.sum(axis=1, dtype=np.float64)).ravel())
            n_genes.append(np.diff(block.indptr))
            good = _rich(n_genes[-1], config)
            scale = TARGET / np.maximum(totals[-1][good], 1) if expression.content == "counts" else None
            rich = block if good.all() else block[good]
            sums.add(rich, scale, donor[first : first + len(good)][good])
            first += len(good)
            advance(len(good), block.data.nbytes + block.indices.nbytes)
    return np.concatenate(totals), np.concatenate(n_genes)


def _rich(n_genes: np.ndarray, config: DataConfig) -> np.ndarray:
    """Which nuclei express enough genes, and any at all."""
    return n_genes >= max(1, config.min_genes)


def _good(cells: pd.DataFrame, config: DataConfig) -> np.ndarray:
    """Which nuclei are rich enough, and of donors with enough of those [nuclei] bool.

    Raises:
        UserError: none is left.
    """
    rich = _rich(cells["n_genes"].to_numpy(), config)
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


def gene_names(var: pd.DataFrame) -> pd.DataFrame:
    """Unique name, symbol and Ensembl id of each gene, from whichever of index and columns holds them;
    with `highly_variable` where the file has it."""
    texts = [pd.Series(var.index.astype(str), name="index")]
    texts += [var[c].astype(str).reset_index(drop=True) for c in var if var[c].dtype.kind not in "bifc"]
    is_ensembl = [bool(text.str.fullmatch(r"ENS[A-Z]*G\d{11}(\.\d+)?").mean() > 0.5) for text in texts]
    ensembl = next((t for t, yes in zip(texts, is_ensembl, strict=True) if yes), None)
    named = {"feature_name", "gene_symbol", "gene_symbols", "gene_name", "symbol"}
    if not is_ensembl[0] and not texts[0].str.fullmatch(r"\d+").all():
        # Sources disagree on what `gene_ids` holds: it gives symbols only where the index does not.
        named.add("index")
    else:
        named.add("gene_ids")
    symbols = [t for t, ids in zip(texts, is_ensembl, strict=True) if t.name in named and not ids]
    symbol = next(iter(symbols), None)
    unique = make_index_unique(pd.Index(texts[0]), join="#")
    genes = pd.DataFrame({"name": unique, "symbol": symbol, "ensembl": ensembl})
    if "highly_variable" in var:
        genes["highly_variable"] = var["highly_variable"].to_numpy(bool)
    return genes


def _donor_columns(
    atlas: Atlas, rows: np.ndarray, donor: pd.Series
) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """The obs columns that describe donors, one value per donor, and within which donors a column varies.

    A column that varies within every donor describes nuclei, and is left out.
    """
    columns, varying = {}, {}
    for name in atlas.columns:
        if name.startswith("SIMULATED"):
            continue
        values = atlas.column(name, rows)
        codes = pd.Series(pd.factorize(values)[0]).where(values.notna())
        several = codes.groupby(donor).nunique() > 1
        if several.all():
            continue
        plain = values.astype(object if values.dtype == "category" else values.dtype)
        columns[f"obs:{name}"] = plain.groupby(donor).first()
        if several.any():
            varying[name] = several.index[several].tolist()
    return pd.DataFrame(columns), varying
