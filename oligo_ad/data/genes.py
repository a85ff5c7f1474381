"""Names of genes: symbol and Ensembl id, from whichever of index and columns of var holds them."""

import re

import numpy as np
import pandas as pd
from anndata.utils import make_index_unique

from oligo_ad.data.columns import Column, column_of
from oligo_ad.errors import UserError, listing

ENSEMBL = r"ENS[A-Z]*G\d{11}(\.\d+)?(_PAR_Y)?"
SYMBOLS = {"feature_name", "gene_symbol", "gene_symbols", "gene_name", "gene_names", "symbol"}
# Genomes that Cell Ranger puts before the names of genes.
GENOME = re.compile(r"(?:grch|grcm|hg|mm)\d{2}[a-z]*(?:_premrna)?[_-]{1,6}(?=.)", re.IGNORECASE)
SPREADSHEET = re.compile(r"\d{1,2}-(?:Mar|Sept?|Dec|Oct|Apr|Feb)|(?:Mar|Sept?|Dec)-\d{1,2}", re.IGNORECASE)
VARIABLE = "highly_variable"


def gene_names(var: pd.DataFrame) -> pd.DataFrame:
    """Unique name, symbol and Ensembl id of each gene, missing where unknown.

    With `highly_variable` where the file has it: flags, or as stored where that is neither true nor false.
    """
    columns = [column_of(pd.Series(var.index, name="index"))]
    columns += [
        column_of(var[name].reset_index(drop=True).rename(str(name))) for name in var if _is_text(var[name])
    ]
    texts = [_names(column) for column in columns]
    is_ensembl = [bool(text.dropna().str.fullmatch(ENSEMBL).sum() > 0.5 * len(text)) for text in texts]
    ensembl = next((t for t, yes in zip(texts, is_ensembl, strict=True) if yes), None)
    index = texts[0]
    # Sources disagree on what `gene_ids` holds: it gives symbols only where the index does not.
    numbered = index.dropna().str.fullmatch(r"\d+").all()
    named = SYMBOLS | ({"gene_ids"} if is_ensembl[0] or numbered else {"index"})
    symbols = [t for t, ids in zip(texts, is_ensembl, strict=True) if t.name in named and not ids]
    symbol = next(iter(symbols), None)
    unique = make_index_unique(pd.Index(_texts(columns[0])), join="#")
    genes = pd.DataFrame({"name": unique, "symbol": symbol, "ensembl": ensembl})
    if VARIABLE in var:
        marked = column_of(var[VARIABLE].reset_index(drop=True))
        flags = marked.as_flags()
        genes[VARIABLE] = marked.as_text() if flags is None else flags
        genes[VARIABLE] = genes[VARIABLE].astype(object if flags is None else bool)
    return genes


def gene_order(genes: pd.DataFrame) -> np.ndarray:
    """Positions of genes in the order of Ensembl id, without its version, and name."""
    ensembl = genes["ensembl"].fillna("").astype(str).str.partition(".")[0]
    return np.lexsort((genes["name"].to_numpy(str), ensembl.to_numpy(str)))


def marked_genes(genes: pd.DataFrame) -> np.ndarray:
    """Which genes the file marks as highly variable [genes] bool.

    Raises:
        UserError: there is no such column, or it is neither true nor false, or marks no gene.
    """
    asked = "model.featurizer.genes=provided"
    if VARIABLE not in genes:
        raise UserError(f"{asked}: var has no '{VARIABLE}' column.")
    marked = genes[VARIABLE]
    if marked.dtype != bool:
        raise UserError(
            f"{asked}: var column '{VARIABLE}' holds {listing(map(repr, marked.dropna().unique()), 4)}, "
            "which is not true or false throughout. Store it as booleans, or use model.featurizer.genes=hvg."
        )
    if not marked.any():
        raise UserError(f"{asked}: var column '{VARIABLE}' marks no gene. Use model.featurizer.genes=hvg.")
    return marked.to_numpy(bool)


def gene_notes(var: pd.DataFrame) -> list[str]:
    """Notes on names of genes that are not what they seem."""
    names = _texts(column_of(pd.Series(var.index, name="index")))
    notes = []
    genomes = pd.Series([found[0] for name in names if (found := GENOME.match(name))], dtype=object)
    if len(genomes):
        counts = ", ".join(f"'{genome}' ({n:,} genes)" for genome, n in genomes.value_counts().items())
        notes.append(f"names of genes begin with a genome, which is not part of their symbol: {counts}")
    if dates := [name for name in names if SPREADSHEET.fullmatch(name)]:
        notes.append(f"{len(dates)} names of genes are dates, made by a spreadsheet: {listing(dates, 4)}")
    if doubled := len(names) - len(set(names)):
        notes.append(f"{doubled} genes bear a name that an earlier one has; a number is added to theirs")
    return notes


def _is_text(values: pd.Series) -> bool:
    categories = values.dtype.categories if isinstance(values.dtype, pd.CategoricalDtype) else values
    return categories.dtype.kind not in "biufcmM"


def _texts(column: Column) -> list[str]:
    """Every entry as text."""
    words = np.array([*column.texts, "nan"], dtype=object)
    return [str(word) for word in words[column.codes]]


def _names(column: Column) -> pd.Series:
    """The entries as names of genes, without a genome before them; missing where there is none."""
    words = [text if known else None for text, known in zip(column.texts, column.known, strict=True)]
    # Mouse genes keep theirs in a file of two species, where it tells them from human ones.
    species = {found[0][:2].casefold() for word in words if word and (found := GENOME.match(word))}
    human = len(species - {"mm"}) > 0
    bare = [_bare(word, human) if word else word for word in words]
    return pd.Series(np.array([*bare, None], dtype=object)[column.codes], name=column.name)


def _bare(word: str, human: bool) -> str:
    found = GENOME.match(word)
    if not found or (human and found[0].casefold().startswith(("mm", "grcm"))):
        return word
    return word[found.end() :]
