"""The cohort: the chosen nuclei with their counts, genes and donors, before anything is fitted."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.utils import make_index_unique
from tqdm import tqdm

from oligo_ad.config import DataConfig
from oligo_ad.data import selection
from oligo_ad.data.atlas import Atlas
from oligo_ad.data.expression import Expression, find_expression, log_normalise, require
from oligo_ad.errors import UserError


@dataclass(frozen=True)
class Cohort:
    """Everything the protocol works on; nothing here was fitted on anything.

    `matrix` [cells, genes] float32, counts or log values as `expression.content` says.
    `cells`: barcode, donor, label (0/1), total (counts), n_genes, and for a simulated file `truth`.
    `genes`: name (unique), symbol, ensembl, and `highly_variable` where the file has it.
    `donors`: indexed by donor id; label, nuclei, every donor-level obs column of the file.
    `flow`: donors and nuclei by step and class. `about`: facts for the report.
    """

    matrix: sp.csr_matrix
    cells: pd.DataFrame
    genes: pd.DataFrame
    donors: pd.DataFrame
    flow: pd.DataFrame
    excluded: pd.DataFrame
    expression: Expression
    simulated: bool
    about: dict[str, str]
    notes: tuple[str, ...]

    @cached_property
    def log_values(self) -> sp.csr_matrix:
        """Log-normalised expression [cells, genes], float32, of every nucleus by itself."""
        if self.expression.content == "log":
            return self.matrix
        return log_normalise(self.matrix, self.cells["total"].to_numpy())

    def rows_of(self, donors: tuple[str, ...]) -> np.ndarray:
        """Rows of all nuclei of these donors, sorted."""
        return np.flatnonzero(self.cells["donor"].isin(donors).to_numpy())


def build(atlas: Atlas, config: DataConfig) -> Cohort:
    """Select nuclei, read their rows, drop poor nuclei and donors with too few."""
    chosen = selection.select(atlas, config)
    expression = find_expression(atlas, config.counts)
    var = atlas.var(expression.matrix)
    matrix = _read_rows(atlas, expression, chosen.rows)
    n_genes = np.diff(matrix.indptr)
    total = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    cells = pd.DataFrame(
        {
            "barcode": atlas.barcodes()[chosen.rows],
            "donor": chosen.donor,
            "label": chosen.label,
            "total": total if expression.content == "counts" else np.nan,
            "n_genes": n_genes,
        }
    )
    if "SIMULATED affected" in atlas.columns:
        cells["truth"] = atlas.column("SIMULATED affected").to_numpy()[chosen.rows].astype(float)
    good = (n_genes >= max(1, config.min_genes)).astype(bool)
    enough = cells[good].groupby("donor")["label"].size() >= config.min_nuclei
    good &= cells["donor"].isin(enough.index[enough]).to_numpy()
    after = f"quality (≥ {config.min_genes} genes, ≥ {config.min_nuclei} nuclei a donor)"
    cells = cells[good].reset_index(drop=True)
    classes = cells["label"].map({1: "positive", 0: "negative"})
    flow = pd.concat([chosen.flow, selection.count(after, cells.assign(**{"class": classes}))])
    names = {"positive": config.positive, "negative": config.negative}
    if lost := [", ".join(values) for name, values in names.items() if name not in set(classes)]:
        raise UserError(
            f"quality control leaves no nucleus of {' and none of '.join(lost)}: none with data.min_genes="
            f"{config.min_genes} genes in a donor of data.min_nuclei={config.min_nuclei} nuclei. Lower them."
        )
    return Cohort(
        matrix=matrix[good],
        cells=cells,
        genes=gene_names(var),
        donors=_donors(atlas, chosen, good, cells),
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


def _read_rows(atlas: Atlas, expression: Expression, rows: np.ndarray) -> sp.csr_matrix:
    """The chosen rows; every value is checked, not those of a sample only."""
    blocks = []
    with tqdm(total=len(rows), desc="reading", unit=" nuclei", disable=None, leave=False) as progress:
        for block in atlas.rows(expression.matrix, rows):
            block.eliminate_zeros()
            block.sum_duplicates()
            require(block, expression, atlas.path.name)
            blocks.append(block.astype(np.float32))
            progress.update(block.shape[0])
    return sp.vstack(blocks, format="csr")


def gene_names(var: pd.DataFrame) -> pd.DataFrame:
    """Unique name, symbol and Ensembl id of each gene, from whichever of index and columns holds them;
    with `highly_variable` where the file has it."""
    texts = [pd.Series(var.index.astype(str), name="index")]
    texts += [var[c].astype(str).reset_index(drop=True) for c in var if var[c].dtype.kind not in "bifc"]
    is_ensembl = [bool(text.str.fullmatch(r"ENS[A-Z]*G\d{11}(\.\d+)?").mean() > 0.5) for text in texts]
    ensembl = next((t for t, yes in zip(texts, is_ensembl, strict=True) if yes), None)
    named = {"feature_name", "gene_symbol", "gene_symbols", "gene_name", "symbol"}
    if not is_ensembl[0]:
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


def _donors(atlas: Atlas, chosen: selection.Selection, good: np.ndarray, cells: pd.DataFrame) -> pd.DataFrame:
    """The donor table: label, nuclei, and each obs column that is constant within every donor."""
    by_donor = cells.groupby("donor")
    table = pd.DataFrame({"label": by_donor["label"].first(), "nuclei": by_donor.size()})
    columns = {}
    for name in atlas.columns:
        values = atlas.column(name).iloc[chosen.rows[good]].reset_index(drop=True)
        codes = pd.Series(pd.factorize(values)[0]).where(values.notna())
        if (codes.groupby(cells["donor"]).nunique() <= 1).all() and not name.startswith("SIMULATED"):
            first = values.astype(object if values.dtype == "category" else values.dtype)
            columns[name] = first.groupby(cells["donor"]).first()
    return table.join(pd.DataFrame(columns, index=table.index).add_prefix("obs:"))
