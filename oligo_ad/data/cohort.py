"""The cohort: the chosen nuclei with their counts, genes and donors, before anything is fitted."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.utils import make_index_unique

from oligo_ad.config import DataConfig
from oligo_ad.data import selection
from oligo_ad.data.sums import DonorSums
from oligo_ad.errors import UserError
from oligo_ad.progress import progress
from oligo_ad.storage.atlas import Atlas
from oligo_ad.storage.expression import TARGET, Expression, find_expression, log_normalise, require
from oligo_ad.storage.matrix import CellMatrix, MatrixWriter


@dataclass(frozen=True)
class Cohort:
    """Everything the protocol works on; nothing here was fitted on anything.

    `matrix` [cells, genes], counts or log values as `expression.content` says.
    `cells`: barcode, donor, label (0/1), total (counts), n_genes, and for a simulated file `truth`.
    `genes`: name (unique), symbol, ensembl, and `highly_variable` where the file has it.
    `donors`: indexed by donor id; label, nuclei, every donor-level obs column of the file.
    `sums`: of each gene over each donor's nuclei.
    `flow`: donors and nuclei by step and class. `about`: facts for the report.
    """

    matrix: CellMatrix
    cells: pd.DataFrame
    genes: pd.DataFrame
    donors: pd.DataFrame
    sums: DonorSums
    flow: pd.DataFrame
    excluded: pd.DataFrame
    expression: Expression
    simulated: bool
    about: dict[str, str]
    notes: tuple[str, ...]

    def log_values(self, genes: np.ndarray) -> sp.csr_matrix:
        """Log-normalised expression [cells, len(genes)] float32, of every nucleus by itself."""
        values = self.matrix.columns(genes)
        if self.expression.content == "log":
            return values
        return log_normalise(values, self.cells["total"].to_numpy())

    def rows_of(self, donors: tuple[str, ...]) -> np.ndarray:
        """Rows of all nuclei of these donors, sorted."""
        return np.flatnonzero(self.cells["donor"].isin(donors).to_numpy())


def build(atlas: Atlas, config: DataConfig, folder: Path) -> Cohort:
    """Select nuclei, write their rows into a folder, drop poor nuclei and donors with too few."""
    chosen = selection.select(atlas, config)
    expression = find_expression(atlas, config.counts)
    var = atlas.var(expression.matrix)
    donors, donor_code = np.unique(chosen.donor, return_inverse=True)
    writer, sums = MatrixWriter(folder, len(var)), DonorSums.zeros(len(donors), len(var))
    total, n_genes = _write_rows(atlas, expression, chosen.rows, donor_code, config, writer, sums)
    cells = pd.DataFrame(
        {
            "barcode": atlas.barcodes(chosen.rows),
            "donor": chosen.donor,
            "label": chosen.label,
            "total": total if expression.content == "counts" else np.nan,
            "n_genes": n_genes,
        }
    )
    if "SIMULATED affected" in atlas.columns:
        cells["truth"] = atlas.column("SIMULATED affected", chosen.rows).to_numpy(float)
    good = _good(cells, config)
    cells = cells[good].reset_index(drop=True)
    classes = cells["label"].map({1: "positive", 0: "negative"})
    after = f"quality (≥ {config.min_genes} genes, ≥ {config.min_nuclei} nuclei a donor)"
    flow = pd.concat([chosen.flow, selection.count(after, cells.assign(**{"class": classes}))])
    return Cohort(
        matrix=writer.close(good),
        cells=cells,
        genes=gene_names(var),
        donors=_donors(atlas, chosen.rows[good], cells),
        sums=sums.of(np.isin(donors, cells["donor"])),
        flow=flow.reset_index(drop=True),
        excluded=chosen.excluded,
        expression=expression,
        simulated=atlas.simulated,
        about={
            "file": atlas.path.name,
            "donor column": chosen.columns.donor,
            "label column": chosen.columns.label,
            "positive (1)": ", ".join(config.positive),
            "negative (0)": ", ".join(config.negative),
            "cell type column": chosen.columns.cell_type or "none: every nucleus",
            "cell types": ", ".join(chosen.cell_types) or "all",
            "expression": expression.says,
        },
        notes=chosen.notes,
    )


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
        for block in atlas.rows(expression.matrix, rows, tell=True):
            require(block, expression, atlas.path.name)
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
    """Which nuclei are rich enough, and of donors with enough of those [cells] bool.

    Raises:
        UserError: none is left of one class.
    """
    rich = _rich(cells["n_genes"].to_numpy(), config)
    enough = cells[rich].groupby("donor")["label"].size() >= config.min_nuclei
    good: np.ndarray = rich & cells["donor"].isin(enough.index[enough]).to_numpy()
    left, names = set(cells["label"][good]), {1: config.positive, 0: config.negative}
    if lost := [", ".join(values) for label, values in names.items() if label not in left]:
        raise UserError(
            f"quality control leaves no nucleus of {' and none of '.join(lost)}: none with data.min_genes="
            f"{config.min_genes} genes in a donor of data.min_nuclei={config.min_nuclei} nuclei. Lower them."
        )
    return good


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


def _donors(atlas: Atlas, rows: np.ndarray, cells: pd.DataFrame) -> pd.DataFrame:
    """The donor table: label, nuclei, and each obs column that is constant within every donor."""
    by_donor = cells.groupby("donor")
    table = pd.DataFrame({"label": by_donor["label"].first(), "nuclei": by_donor.size()})
    columns = {}
    for name in atlas.columns:
        values = atlas.column(name, rows)
        codes = pd.Series(pd.factorize(values)[0]).where(values.notna())
        if (codes.groupby(cells["donor"]).nunique() <= 1).all() and not name.startswith("SIMULATED"):
            first = values.astype(object if values.dtype == "category" else values.dtype)
            columns[name] = first.groupby(cells["donor"]).first()
    return table.join(pd.DataFrame(columns, index=table.index).add_prefix("obs:"))
