"""Gene matching: finds the token of a vocabulary for each gene of a file.

Vocabularies hold gene symbols or Ensembl ids; which, their tokens show. Published ones of symbols hold
those of the CELLxGENE census, or `SYMBOL_ENSG…` where a symbol names several genes. Files name genes by other
annotations, so genes are matched by Ensembl id wherever a file has it.

`cellxgene_genes.csv.gz` holds, for 60,664 human genes, the Ensembl id and symbol of the CELLxGENE schema
3.1.1 (Chan Zuckerberg Initiative, MIT licence), and the symbol of GENCODE 44 where that is another (as
listed in celltypist 1.7.1, MIT licence).
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

TABLE = Path(__file__).with_name("cellxgene_genes.csv.gz")
# How a gene can be found in a vocabulary of symbols, in the order of trust,
SYMBOL_ROUTES = {
    "symbol": "its symbol is a token",
    "ensembl": "its Ensembl id has, in the CELLxGENE gene table, a symbol that is a token",
    "suffixed": "SYMBOL_ENSG… is a token",
    "renamed": "its symbol is a later name (GENCODE 44) of a token",
}
# and in one of Ensembl ids, whose versions do not matter.
ENSEMBL_ROUTES = {
    "ensembl": "its Ensembl id is a token",
    "symbol": "its symbol has, in the CELLxGENE gene table, one Ensembl id, which is a token",
    "renamed": "its symbol is a later name (GENCODE 44) of one gene, whose Ensembl id is a token",
}
DUPLICATE, UNMATCHED = "duplicate", "unmatched"
UNKNOWN = -1
ENSEMBL_ID, VERSION = re.compile(r"ENSG\d{11}(\.\d+)?"), re.compile(r"\.\d+$")
Ways = dict[str, list[pd.Series]]  # names [genes] to look for, in the order of trust


def match_genes(genes: pd.DataFrame, vocabulary: Sequence[str]) -> pd.DataFrame:
    """The token id of each gene, -1 without one, and the route by which it was found.

    No two genes get one token: the earlier route wins, then the earlier place in the file; the others
    are `duplicate` and are left out.

    Args:
        genes: name, symbol, ensembl, as in `Cohort.genes`; symbol or ensembl may be missing.
        vocabulary: the token of each id.

    Returns:
        `id` and `route`, a row for each gene.
    """
    symbol = genes["symbol"].fillna(genes["name"]).astype(str)
    # Some files have the Ensembl id in the name only: `TTC34_ENSG00000215912`.
    ensembl = genes["ensembl"].fillna(symbol).astype(str).str.extract(r"(ENSG\d{11})")[0]
    if holds_ensembl_ids(vocabulary):
        tokens = [VERSION.sub("", token) for token in vocabulary]
        return _found(tokens, _ways_to_ensembl_ids(symbol, ensembl))
    return _found(vocabulary, _ways_to_symbols(symbol, ensembl, vocabulary))


def holds_ensembl_ids(vocabulary: Sequence[str]) -> bool:
    """Whether most tokens of genes are Ensembl ids; else they are symbols. `<pad>` and such are no genes."""
    is_id = [bool(ENSEMBL_ID.fullmatch(token)) for token in vocabulary if not token.startswith("<")]
    return sum(is_id) > len(is_id) / 2


def routes(vocabulary: Sequence[str]) -> dict[str, str]:
    """The ways in which a gene can be found in a vocabulary, and what each means."""
    return ENSEMBL_ROUTES if holds_ensembl_ids(vocabulary) else SYMBOL_ROUTES


def _ways_to_symbols(symbol: pd.Series, ensembl: pd.Series, vocabulary: Sequence[str]) -> Ways:
    """The symbols that a gene may have among the tokens, by route."""
    table = gene_table()
    named = ensembl.map(table["symbol"])
    # A name alone is not trusted where the Ensembl id shows which gene it is.
    alone = symbol.where(named.isna())
    return {
        "symbol": [symbol],
        "ensembl": [named],
        "suffixed": [named + "_" + ensembl, symbol + "_" + ensembl, alone.map(_suffixed(vocabulary))],
        "renamed": [alone.map(token) for token in _renamed(table)],
    }


def _ways_to_ensembl_ids(symbol: pd.Series, ensembl: pd.Series) -> Ways:
    """The Ensembl ids that a gene may have among the tokens, by route."""
    table = gene_table()
    ids = pd.Series(table.index, index=table.index)
    later = table["gencode44"] != ""
    # As with symbols: a name is not used where the table has the Ensembl id.
    alone = symbol.where(~ensembl.isin(table.index))
    return {
        "ensembl": [ensembl],
        "symbol": [alone.map(_unique(ids.set_axis(table["symbol"])))],
        "renamed": [alone.map(_unique(ids[later].set_axis(table["gencode44"][later])))],
    }


def _found(tokens: Sequence[str], ways: Ways) -> pd.DataFrame:
    """Each gene's first token that no other gene has."""
    token_id: dict[str, int] = {}
    for place, token in enumerate(tokens):
        token_id.setdefault(token, place)
    (first, *_), *_ = ways.values()
    found = pd.DataFrame({"id": UNKNOWN, "route": UNMATCHED}, index=first.index)
    for route, names in ways.items():
        for name in names:
            fresh = name.map(token_id).where(found["id"] == UNKNOWN).dropna().astype(int)
            taken = fresh.isin(found["id"]) | fresh.duplicated()
            found.loc[fresh.index[~taken], "id"] = fresh[~taken]
            found.loc[fresh.index, "route"] = np.where(taken, DUPLICATE, route)
    return found


@cache
def gene_table() -> pd.DataFrame:
    """Symbol and, where it is another, `gencode44`; indexed by Ensembl id."""
    return pd.read_csv(TABLE, index_col="ensembl", keep_default_na=False)


def census_tokens() -> list[str]:
    """A token for each gene of the table, spelt as in the published vocabularies."""
    table = gene_table()
    ambiguous = table["symbol"].duplicated(keep=False)
    return [*table["symbol"].where(~ambiguous, table["symbol"] + "_" + table.index)]


def likely_cause(genes: pd.DataFrame) -> str:
    """Why few genes of a file would be in a vocabulary of human genes."""
    names = genes["symbol"].fillna(genes["ensembl"]).fillna(genes["name"]).astype(str)
    if names.str.fullmatch(r"ENSMUS\w+|[A-Z][a-z0-9]+").mean() > 0.5:
        return "They look like mouse genes"
    if names.str.fullmatch(r"[\d.]+").mean() > 0.5:
        return "They are numbers: the names of the genes were lost before the file was written"
    return "Perhaps var names them by an identifier other than symbol or Ensembl id"


def _suffixed(vocabulary: Iterable[str]) -> pd.Series:
    """Tokens `SYMBOL_ENSG…` by their symbol, where only one has it."""
    tokens = pd.Series([token for token in vocabulary if "_ENSG" in token], dtype=str)
    return _unique(tokens.set_axis(tokens.str.replace(r"_ENSG\d+$", "", regex=True)))


def _renamed(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """The tokens, plain and suffixed, that genes of another name may be, by that name."""
    other = table[table["gencode44"] != ""].reset_index().set_index("gencode44")
    return _unique(other["symbol"]), _unique(other["symbol"] + "_" + other["ensembl"])


def _unique(values: pd.Series) -> pd.Series:
    return values[~values.index.duplicated(keep=False)]
