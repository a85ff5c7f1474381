"""Which token a gene of a file is: the routes, their order, and what is never guessed."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oligo_ad.data.cohort import Cohort
from oligo_ad.inputs import vocabulary as module
from oligo_ad.inputs.vocabulary import (
    UNKNOWN,
    census_tokens,
    gene_table,
    holds_ensembl_ids,
    likely_cause,
    match_genes,
    routes,
)
from oligo_ad.models.pretrained import Pretrained
from oligo_ad.models.scgpt.tokens import BinnedGenes
from tests.builders import answer, assert_says, atlas, cohort

Gene = tuple[str | None, str | None]
CENSUS = census_tokens()
INVENTED = pd.DataFrame(
    [
        ("ENSG00000000001", "ALPHA", ""),
        ("ENSG00000000002", "TWIN", ""),
        ("ENSG00000000003", "TWIN", ""),
        ("ENSG00000000004", "OLD", "NEW"),
        ("ENSG00000000005", "PART-A", "WHOLE"),
        ("ENSG00000000006", "PART-B", "WHOLE"),
    ],
    columns=["ensembl", "symbol", "gencode44"],
).set_index("ensembl")
TWIN_2, TWIN_3 = "TWIN_ENSG00000000002", "TWIN_ENSG00000000003"


def frame(*genes: Gene) -> pd.DataFrame:
    """Genes as a cohort has them, by symbol and Ensembl id."""
    symbol, ensembl = (pd.Series(part, dtype=object) for part in zip(*genes, strict=True))
    unique = [f"{name}#{place}" for place, name in enumerate(symbol)]
    return pd.DataFrame({"name": unique, "symbol": symbol, "ensembl": ensembl})


def matches(genes: pd.DataFrame, vocabulary: list[str]) -> list[tuple[str | None, str]]:
    """Token and route of each gene."""
    found = match_genes(genes, vocabulary)
    assert found.index.equals(genes.index)
    pairs = zip(found["id"], found["route"], strict=True)
    return [(None if place == -1 else vocabulary[place], route) for place, route in pairs]


# Routes


@pytest.mark.parametrize(
    ("gene", "vocabulary", "found"),
    [
        (("ALPHA", None), ["ALPHA"], ("ALPHA", "symbol")),
        (("NOWHERE", None), ["NOWHERE"], ("NOWHERE", "symbol")),
        ((TWIN_2, None), [TWIN_2, "TWIN"], (TWIN_2, "symbol")),
        (("LOCAL", "ENSG00000000001"), ["ALPHA"], ("ALPHA", "ensembl")),
        (("LOCAL", "ENSG00000000001.14"), ["ALPHA"], ("ALPHA", "ensembl")),
        (("ENSG00000000001.14", None), ["ALPHA"], ("ALPHA", "ensembl")),
        ((None, "ENSG00000000001.14"), ["ALPHA"], ("ALPHA", "ensembl")),
        (("LOCAL_ENSG00000000001", None), ["ALPHA", "LOCAL"], ("ALPHA", "ensembl")),
        (("LOCAL", "ENSG00000000003.2"), [TWIN_2, TWIN_3], (TWIN_3, "suffixed")),
        (("TWIN", "ENSG00000000003.2"), [TWIN_2, TWIN_3], (TWIN_3, "suffixed")),
        (("LOCAL", "ENSG00000000099"), ["LOCAL_ENSG00000000099"], ("LOCAL_ENSG00000000099", "suffixed")),
        (("TWIN", None), ["ALPHA", TWIN_3], (TWIN_3, "suffixed")),
        (("TWIN", None), [TWIN_2, TWIN_3], (None, "unmatched")),
        (("NEW", None), ["OLD"], ("OLD", "renamed")),
        (("NEW", None), ["OLD_ENSG00000000004"], ("OLD_ENSG00000000004", "renamed")),
        (("WHOLE", None), ["PART-A", "PART-B"], (None, "unmatched")),
        (("WHOLE", None), ["PART-A"], (None, "unmatched")),
        (("PART-A", "ENSG00000000006"), ["PART-A", "PART-B"], ("PART-A", "symbol")),
        (("LOCAL", "ENSG00000000099"), ["ALPHA"], (None, "unmatched")),
        (("alpha", None), ["ALPHA"], (None, "unmatched")),
        (("ALPHA.1", None), ["ALPHA"], (None, "unmatched")),
    ],
)
def test_a_gene_is_found_by_the_route_it_has(
    monkeypatch: pytest.MonkeyPatch, gene: Gene, vocabulary: list[str], found: tuple[str | None, str]
) -> None:
    monkeypatch.setattr(module, "gene_table", lambda: INVENTED)
    assert matches(frame(gene), ["<pad>", *vocabulary]) == [found]


def test_genes_are_found_among_the_tokens_of_the_census() -> None:
    found: dict[Gene, tuple[str | None, str]] = {
        ("APOE", None): ("APOE", "symbol"),
        ("myelin", "ENSG00000197971.14"): ("MBP", "ensembl"),
        ("TTC34_ENSG00000215912", None): ("TTC34", "ensembl"),
        ("MATR3", "ENSG00000280987.4"): ("MATR3_ENSG00000280987", "suffixed"),
        ("MATR3", "ENSG00000015479"): ("MATR3_ENSG00000015479", "suffixed"),
        ("MATR3", None): (None, "unmatched"),
        ("TAFAZZIN", None): ("TAZ", "renamed"),
        ("ATOSB", "ENSG00000005238"): ("FAM214B", "ensembl"),
        ("GPR84-AS1", None): (None, "unmatched"),
    }
    assert matches(frame(*found), CENSUS) == list(found.values())


def test_every_gene_of_the_table_has_its_own_token_by_ensembl_id() -> None:
    table = gene_table()
    genes = frame(*((None, f"{ensembl}.1") for ensembl in table.index))
    assert [token for token, _ in matches(genes, CENSUS)] == CENSUS


def test_census_tokens_are_unique_and_spelt_with_the_id_where_the_symbol_is_not() -> None:
    table, tokens = gene_table(), census_tokens()
    assert len(set(tokens)) == len(tokens) == len(table) == 60_664
    times = table["symbol"].map(table["symbol"].value_counts())
    for token, symbol, ensembl, n in zip(tokens, table["symbol"], table.index, times, strict=True):
        assert token == (symbol if n == 1 else f"{symbol}_{ensembl}")


# Their order


@pytest.mark.parametrize(
    ("genes", "found"),
    [
        ([("LOCAL", "ENSG00000000001"), ("ALPHA", None)], [(None, "duplicate"), ("ALPHA", "symbol")]),
        ([("TWIN", None), ("LOCAL", "ENSG00000000003")], [(None, "duplicate"), (TWIN_3, "suffixed")]),
        ([("NEW", None), ("LOCAL", "ENSG00000000004")], [(None, "duplicate"), ("OLD", "ensembl")]),
        ([("NEW", None), ("OLD", None)], [(None, "duplicate"), ("OLD", "symbol")]),
        ([("ALPHA", None), ("ALPHA", None)], [("ALPHA", "symbol"), (None, "duplicate")]),
        ([("A", "ENSG00000000004.1"), ("B", "ENSG00000000004.2")], [("OLD", "ensembl"), (None, "duplicate")]),
    ],
)
def test_the_earlier_route_wins_then_the_earlier_place(
    monkeypatch: pytest.MonkeyPatch, genes: list[Gene], found: list[tuple[str | None, str]]
) -> None:
    monkeypatch.setattr(module, "gene_table", lambda: INVENTED)
    assert matches(frame(*genes), ["ALPHA", TWIN_3, "OLD"]) == found


def test_a_gene_whose_token_is_taken_may_have_another_by_a_later_route(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "gene_table", lambda: INVENTED)
    genes = frame(("TWIN", "ENSG00000000002"), ("TWIN", "ENSG00000000003"))
    assert matches(genes, ["TWIN", TWIN_3]) == [("TWIN", "symbol"), (TWIN_3, "suffixed")]


# Both of the genes named MATR3, renamed ones (two with one new name), -1 that is part of a name, many of one
POOL = gene_table().loc[
    [
        *("ENSG00000015479", "ENSG00000280987", "ENSG00000102125", "ENSG00000005238", "ENSG00000258086"),
        *("ENSG00000258137", "ENSG00000211707", "ENSG00000130203", "ENSG00000277488", "ENSG00000277411"),
    ]
]


@st.composite
def files(draw: st.DrawFn) -> pd.DataFrame:
    """Genes of the pool, some more than once, each as some file may have it."""
    genes: list[Gene] = []
    for row in draw(
        st.lists(st.sampled_from(POOL.reset_index().to_dict("records")), min_size=1, max_size=12)
    ):
        ensembl, version = row["ensembl"], draw(st.sampled_from(["", ".7"]))
        later = row["gencode44"] or row["symbol"]
        spellings = [row["symbol"], later, f"{row['symbol']}_{ensembl}", f"{row['symbol']}-1", "LOCAL"]
        genes.append(
            (draw(st.sampled_from(spellings)), draw(st.sampled_from([None, None, f"{ensembl}{version}"])))
        )
    return frame(*genes)


def by_definition(genes: pd.DataFrame, vocabulary: list[str]) -> list[tuple[str | None, str]]:
    """Gene by gene, from the definition of each route."""
    table = gene_table()
    suffixed = [token for token in vocabulary if "_ENSG" in token]

    def only(tokens: list[str]) -> str | None:
        return tokens[0] if len(tokens) == 1 else None

    def tokens_of(symbol: str, ensembl: str | None) -> list[tuple[str, str | None]]:
        ids = ensembl or symbol
        ids = ids[ids.index("ENSG") :][:15] if "ENSG" in ids else ""
        named = table["symbol"].get(ids)
        renamed = table[table["gencode44"] == symbol]
        old = [*renamed["symbol"]], [f"{old}_{of}" for of, old in renamed["symbol"].items()]
        by_name = [
            ("suffixed", only([token for token in suffixed if token.split("_ENSG")[0] == symbol])),
            ("renamed", only(old[0])),
            ("renamed", only(old[1])),
        ]
        return [
            ("symbol", symbol),
            ("ensembl", named),
            ("suffixed", f"{named}_{ids}"),
            ("suffixed", f"{symbol}_{ids}"),
            *(by_name if named is None else [(route, None) for route, _ in by_name]),
        ]

    ways = [tokens_of(*gene) for gene in zip(genes["symbol"], genes["ensembl"], strict=True)]
    found: list[tuple[str | None, str]] = [(None, "unmatched")] * len(genes)
    for way in range(7):
        for gene, tokens in enumerate(ways):
            route, token = tokens[way]
            if found[gene][0] is None and token in vocabulary:
                taken = token in {other for other, _ in found}
                found[gene] = (None, "duplicate") if taken else (token, route)
    return found


@settings(max_examples=40, deadline=None)
@given(
    files(),
    st.sets(st.sampled_from([*POOL["symbol"], *(POOL["symbol"] + "_" + POOL.index), "APOE-1"]), min_size=1),
)
def test_no_two_genes_get_one_token_and_each_gets_the_first_that_is_free(
    genes: pd.DataFrame, tokens: set[str]
) -> None:
    vocabulary = sorted(tokens)
    found = matches(genes, vocabulary)
    given_away = [token for token, _ in found if token]
    assert len(given_away) == len(set(given_away))
    assert all((token is None) == (route in {"duplicate", "unmatched"}) for token, route in found)
    assert found == by_definition(genes, vocabulary)


# Vocabularies of Ensembl ids

ID = {n: f"ENSG0000000000{n}" for n in range(1, 10)}


@pytest.mark.parametrize(
    ("gene", "vocabulary", "found"),
    [
        # files with both, with symbols only, with Ensembl ids only, with versions
        (("ALPHA", ID[1]), [ID[1]], (ID[1], "ensembl")),
        (("ALPHA", None), [ID[1]], (ID[1], "symbol")),
        ((None, ID[1]), [ID[1]], (ID[1], "ensembl")),
        ((None, f"{ID[1]}.14"), [ID[1]], (ID[1], "ensembl")),
        ((f"{ID[1]}.14", None), [ID[1]], (ID[1], "ensembl")),
        ((None, ID[1]), [f"{ID[1]}.3"], (f"{ID[1]}.3", "ensembl")),
        ((None, f"{ID[1]}.14"), [f"{ID[1]}.3"], (f"{ID[1]}.3", "ensembl")),
        (("ALPHA", None), [f"{ID[1]}.3"], (f"{ID[1]}.3", "symbol")),
        ((f"LOCAL_{ID[1]}", None), [ID[1]], (ID[1], "ensembl")),
        # an id that no table knows is a token, or its symbol is trusted
        (("LOCAL", ID[9]), [ID[9]], (ID[9], "ensembl")),
        (("ALPHA", ID[9]), [ID[1]], (ID[1], "symbol")),
        # but not a symbol beside the id of another gene
        (("ALPHA", ID[4]), [ID[1]], (None, "unmatched")),
        # several genes of one symbol, later names, several genes of one later name
        (("TWIN", None), [ID[2], ID[3]], (None, "unmatched")),
        (("TWIN", None), [ID[3]], (None, "unmatched")),
        (("TWIN", ID[3]), [ID[2], ID[3]], (ID[3], "ensembl")),
        (("NEW", None), [ID[4]], (ID[4], "renamed")),
        (("WHOLE", None), [ID[5], ID[6]], (None, "unmatched")),
        (("ALPHA", ID[1]), [ID[2]], (None, "unmatched")),
    ],
)
def test_a_gene_is_found_among_ensembl_ids_by_the_route_it_has(
    monkeypatch: pytest.MonkeyPatch, gene: Gene, vocabulary: list[str], found: tuple[str | None, str]
) -> None:
    monkeypatch.setattr(module, "gene_table", lambda: INVENTED)
    assert matches(frame(gene), ["<pad>", "<cls>", *vocabulary]) == [found]


@pytest.mark.parametrize(
    ("tokens", "ensembl"),
    [
        ([ID[1], "<pad>", "<cls>", "<eoc>"], True),
        ([ID[1], f"{ID[2]}.7", "ALPHA"], True),
        (["ALPHA", "TWIN", ID[1]], False),
        ([TWIN_2, TWIN_3], False),
        (["ALPHA", ID[1]], False),
        (["<pad>"], False),
    ],
)
def test_the_tokens_tell_what_a_vocabulary_holds(tokens: list[str], ensembl: bool) -> None:
    assert holds_ensembl_ids(tokens) == ensembl
    assert set(routes(tokens)) == {"ensembl", "symbol", "renamed"} | (set() if ensembl else {"suffixed"})


@pytest.mark.parametrize(
    ("genes", "found"),
    [
        ([("ALPHA", None), ("LOCAL", ID[1])], [(None, "duplicate"), (ID[1], "ensembl")]),
        ([("NEW", None), ("OLD", None)], [(None, "duplicate"), (ID[4], "symbol")]),
        ([("A", f"{ID[1]}.1"), ("B", f"{ID[1]}.2")], [(ID[1], "ensembl"), (None, "duplicate")]),
    ],
)
def test_no_two_genes_get_one_ensembl_id(
    monkeypatch: pytest.MonkeyPatch, genes: list[Gene], found: list[tuple[str | None, str]]
) -> None:
    monkeypatch.setattr(module, "gene_table", lambda: INVENTED)
    assert matches(frame(*genes), [ID[1], ID[4]]) == found


def test_every_gene_of_the_table_is_found_among_ensembl_ids_by_id_and_by_a_symbol_of_its_own() -> None:
    table = gene_table()
    vocabulary = list(table.index)
    by_id = matches(frame(*((None, f"{ensembl}.1") for ensembl in table.index)), vocabulary)
    assert by_id == [(ensembl, "ensembl") for ensembl in table.index]
    only = table[~table["symbol"].duplicated(keep=False)]
    by_symbol = matches(frame(*((symbol, None) for symbol in only["symbol"])), vocabulary)
    # A few have no other symbol than their id.
    routes_of = only["symbol"].str.startswith("ENSG").map({True: "ensembl", False: "symbol"})
    assert by_symbol == list(routes_of.items())


def test_the_report_of_a_vocabulary_of_ensembl_ids_tells_its_own_routes(tmp_path: Path) -> None:
    genes = gene_table().index[:60].tolist()
    made = named(tmp_path, [f"{ensembl}.2" for ensembl in genes])
    pretrained = Pretrained(("<pad>", "<cls>", *genes), {"n_bins": 51, "pad_value": -2})
    facts = BinnedGenes(pretrained).fit(made, tuple(made.donors.index)).facts()
    assert facts["with a token"] == "60 (100.0%)"
    assert_says(facts["by ensembl"], "60: ", "its Ensembl id is a token")
    assert "by suffixed" not in facts


# Names that end in -1


def test_real_names_that_end_in_minus_1_are_tokens() -> None:
    names = [token for token in CENSUS if token.endswith("-1")]
    assert {"TRBV7-1", "NKX2-1", "H1-1"} <= set(names)
    found = matches(frame(*((name, None) for name in names)), CENSUS)
    assert found == [(name, "symbol") for name in names]


@pytest.mark.parametrize("name", ["TRBV7-1", "MATR3-1", "APOE-2", "APOE.1", "APOE#1"])
def test_a_name_made_unique_is_never_stripped(name: str) -> None:
    assert matches(frame((name, None)), ["TRBV7", "MATR3", "APOE"]) == [(None, "unmatched")]


def test_the_second_gene_of_a_name_is_found_by_its_ensembl_id_alone() -> None:
    ids = "ENSG00000015479", "ENSG00000280987"
    known = frame(("MATR3", ids[0]), ("MATR3-1", ids[1]))
    wanted = [(f"MATR3_{ensembl}", "suffixed") for ensembl in ids]
    assert matches(known, CENSUS) == wanted
    assert matches(frame(("MATR3", None), ("MATR3-1", None)), ["MATR3"]) == [
        ("MATR3", "symbol"),
        (None, "unmatched"),
    ]


# Genes of a file, by way of a cohort


def named(folder: Path, names: list[str], **columns: list[str]) -> Cohort:
    """A cohort whose genes have these names in the index of var, and columns beside."""
    adata = atlas(genes=len(names))
    adata.var = pd.DataFrame(columns, index=names)
    return cohort(adata, folder)


def test_symbols_with_an_ensembl_id_attached_are_read(tmp_path: Path) -> None:
    symbols = ["APOE", "TTC34_ENSG00000215912", "MATR3_ENSG00000280987", "LOCAL_ENSG00000102125"]
    genes = named(tmp_path, symbols).genes
    assert genes["name"].tolist() == sorted(symbols)
    assert matches(genes, CENSUS) == [
        ("APOE", "symbol"),
        ("TAZ", "ensembl"),
        ("MATR3_ENSG00000280987", "symbol"),
        ("TTC34", "ensembl"),
    ]


def test_symbols_with_an_ensembl_id_attached_are_read_from_a_file_of_the_census(tmp_path: Path) -> None:
    ids = ["ENSG00000130203", "ENSG00000215912", "ENSG00000280987", "ENSG00000102125"]
    symbols = ["APOE", "TTC34_ENSG00000215912", "MATR3_ENSG00000280987", "TAFAZZIN"]
    genes = named(tmp_path, ids, feature_name=symbols).genes
    assert dict(zip(genes["name"], genes["symbol"], strict=True)) == dict(zip(ids, symbols, strict=True))
    assert matches(genes, CENSUS) == [
        ("TAZ", "ensembl"),
        ("APOE", "symbol"),
        ("TTC34", "ensembl"),
        ("MATR3_ENSG00000280987", "symbol"),
    ]


def test_genes_named_by_versioned_ids_are_read(tmp_path: Path) -> None:
    genes = named(tmp_path, ["ENSG00000130203.10", "ENSG00000280987.4", "ENSG00000000000.1"]).genes
    assert matches(genes, CENSUS) == [
        (None, "unmatched"),
        ("APOE", "ensembl"),
        ("MATR3_ENSG00000280987", "suffixed"),
    ]


@pytest.mark.parametrize(
    ("names", "cause"),
    [
        (["Apoe", "Mbp", "Plp1", "Gm12345", "MT-CO1"], "They look like mouse genes"),
        (["ENSMUSG00000002985", "ENSMUSG00000041607", "Gm1"], "They look like mouse genes"),
        (["0", "1", "17", "204"], "They are numbers: the names of the genes were lost"),
        (["0.0", "1.0", "2.0"], "They are numbers"),
        (["NM_000041", "NM_002385", "348"], "by an identifier other than symbol or Ensembl id"),
        (["APOE", "MBP", "Gm1"], "by an identifier other than symbol or Ensembl id"),
    ],
)
def test_the_likely_cause_is_told(names: list[str], cause: str) -> None:
    assert_says(likely_cause(frame(*((name, None) for name in names))), cause)
    index_only = pd.DataFrame({"name": names, "symbol": None, "ensembl": None})
    assert_says(likely_cause(index_only), cause)


def vocabulary(*tokens: str) -> Pretrained:
    """A vocabulary, with tokens of genes that no file has."""
    others = [f"OTHER{i}" for i in range(1100)]
    return Pretrained(("<pad>", "<cls>", *others, *tokens), {"n_bins": 51, "pad_value": -2})


NAMES = [f"GENE{i}" for i in range(60)]


@pytest.mark.parametrize(
    ("names", "cause"),
    [
        ([f"Gene{i}" for i in range(60)], "They look like mouse genes"),
        ([str(i) for i in range(60)], "They are numbers"),
        ([f"NM_{i:06d}" for i in range(60)], "an identifier other than symbol"),
    ],
)
def test_a_file_of_other_genes_is_refused_with_the_cause(
    tmp_path: Path, names: list[str], cause: str
) -> None:
    made = named(tmp_path, names)
    said = answer(BinnedGenes(vocabulary(*NAMES)).fit, made, tuple(made.donors.index))
    assert_says(
        said, "only 0.0% of the genes", cause, "model.featurizer.min_matched=0.5", names[0], "such as GENE"
    )


def test_a_file_at_the_floor_is_taken_and_one_below_is_not(tmp_path: Path) -> None:
    made = named(tmp_path, NAMES)
    train = tuple(made.donors.index)
    assert BinnedGenes(vocabulary(*NAMES[:30])).fit(made, train).gene_names == sorted(NAMES[:30])
    assert_says(answer(BinnedGenes(vocabulary(*NAMES[:29])).fit, made, train), "only 48.3% of the genes")
    assert BinnedGenes(vocabulary(*NAMES[:6]), min_matched=0.1).fit(made, train).gene_names == sorted(
        NAMES[:6]
    )


def test_genes_without_a_count_in_training_do_not_count(tmp_path: Path) -> None:
    adata = atlas()
    others = ("D00", "D14")
    counts = adata.X.toarray()
    counts[~adata.obs["Donor ID"].isin(others).to_numpy(), 20:] = 0
    adata.X = type(adata.X)(counts)
    made = cohort(adata, tmp_path)
    train = tuple(donor for donor in made.donors.index if donor not in others)
    featurizer = BinnedGenes(vocabulary(*NAMES[:10], *NAMES[30:35])).fit(made, train)
    assert featurizer.gene_names == sorted(NAMES[:10] + NAMES[30:35])
    assert featurizer.facts()["genes"] == "20, expressed in training donors"
    assert featurizer.facts()["with a token"] == "10 (50.0%)"
    few = BinnedGenes(vocabulary(*NAMES[:9], *NAMES[20:60]))
    assert_says(answer(few.fit, made, train), "only 45.0% of the genes")


def test_the_report_tells_how_genes_were_found(tmp_path: Path) -> None:
    names = ["APOE", "TTC34_ENSG00000215912", "TAFAZZIN", "MATR3_1", "TTC34", "LOCAL"]
    made = named(tmp_path, names)
    tokens = "APOE", "TTC34", "TAZ", "MATR3_ENSG00000280987"
    facts = BinnedGenes(vocabulary(*tokens)).fit(made, tuple(made.donors.index)).facts()
    assert facts["genes"] == "6, expressed in training donors"
    assert facts["with a token"] == "3 (50.0%)"
    assert [facts[f"by {route}"][:2] for route in ("symbol", "ensembl", "suffixed", "renamed")] == [
        "2:",
        "0:",
        "0:",
        "1:",
    ]
    assert_says(facts["without a token"], "2, and 1 whose token another gene has: LOCAL, MATR3_1, TTC34_ENSG")


def test_a_name_is_not_trusted_where_the_ensembl_id_shows_another_gene() -> None:
    """A file may use today's name of one gene, which was once the name of another."""
    table = gene_table()
    later = table[(table["gencode44"] != "") & ~table["gencode44"].duplicated(keep=False)]
    later = later[~later["gencode44"].isin(table["symbol"]) & ~later["symbol"].duplicated(keep=False)].head(
        50
    )
    # Genes of the table whose own symbols are no tokens here.
    others = table.index[~table["symbol"].isin(later["symbol"]) & (table["gencode44"] == "")][: len(later)]
    names = later["gencode44"].to_list()
    for tokens in (later["symbol"].to_list(), [*(later["symbol"] + "_" + later.index)]):
        genes = pd.DataFrame({"name": names, "symbol": names, "ensembl": others})
        assert (match_genes(genes, tokens)["id"] == UNKNOWN).all()
        unnamed = match_genes(genes.assign(ensembl=None), tokens)
        assert unnamed["id"].tolist() == list(range(len(later)))


def test_of_tokens_that_are_one_gene_the_first_is_read() -> None:
    tokens = [f"ENSG0000000000{n}.{version}" for version in (1, 2) for n in (1, 2)]
    genes = pd.DataFrame({"name": ["a", "b"], "symbol": None, "ensembl": [tokens[1], tokens[2]]})
    assert match_genes(genes, tokens)["id"].tolist() == [1, 0]
