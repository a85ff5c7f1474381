"""One decision about the matrix: counts wherever they are and whatever else is whole, logarithms of any base,
or a refusal that names what was seen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from oligo_ad.errors import UserError
from oligo_ad.storage.atlas import open_atlas
from oligo_ad.storage.candidates import flaw_of_counts
from oligo_ad.storage.expression import Expression, find_expression
from oligo_ad.tasks.inspect import describe
from tests import builders
from tests.builders import answer, assert_says

Values = np.ndarray


def counts(seed: int = 0) -> Values:
    dense: Values = builders.atlas(4, 3, nuclei=10, genes=40, seed=seed).X.toarray().astype(np.float64)
    return dense * np.random.default_rng(1).integers(1, 3, (len(dense), 1))


def stored(folder: Path, raw: Values | None = None, x: Values | None = None, **layers: Values) -> Path:
    adata = builders.atlas(4, 3, nuclei=10, genes=40)
    adata = ad.AnnData(None if x is None else sp.csr_matrix(x.astype(np.float32)), adata.obs, adata.var)
    for name, values in layers.items():
        adata.layers[name] = sp.csr_matrix(values.astype(np.float32))
    if raw is not None:
        adata.raw = ad.AnnData(sp.csr_matrix(raw.astype(np.float32)), adata.obs, adata.var)
    return builders.write(adata, folder)


def found(path: Path, wanted: str = "auto") -> Expression:
    with open_atlas(path) as atlas:
        return find_expression(atlas, wanted)


def share(values: Values) -> Values:
    return values / values.sum(axis=1, keepdims=True)


def logged(values: Values, target: float = 1e4) -> Values:
    return np.log1p(target * share(values))


def ranked(values: Values) -> Values:
    return values.argsort(axis=1).argsort(axis=1).astype(float)


def doubled(values: Values) -> Values:
    return 2 * values


# What is whole and no raw counts
NO_COUNTS: dict[str, Callable[[Values], Values]] = {
    "mask": lambda c: c > 0,
    "cut off": lambda c: np.minimum(c, 3),
    "bins": lambda c: np.ceil(5 * c / c.max(axis=1, keepdims=True)),
    "ranks": ranked,
    "equal sums": lambda c: np.round(1e6 * share(c)),
    "multiplied": doubled,
    "scaled": lambda c: c - 3,
    "fractions": lambda c: 0.7 * c,
    "logarithms": logged,
    "empty": lambda c: 0 * c,
    "huge": lambda c: c * 2.0**25,
}
USUAL = ["UMIs", "counts", "raw_counts", "Counts", "umi_counts"]


@pytest.mark.parametrize("name", NO_COUNTS)
@pytest.mark.parametrize("layer", ["A", "counts"])
def test_what_is_no_counts_never_goes_before_counts(tmp_path: Path, name: str, layer: str) -> None:
    expression = found(stored(tmp_path, x=counts(), **{layer: NO_COUNTS[name](counts())}))
    assert (expression.matrix, expression.content) == ("X", "counts")


@pytest.mark.parametrize("name", sorted(set(NO_COUNTS) - {"logarithms", "fractions"}))
def test_what_is_no_counts_is_refused_where_there_is_nothing_else(tmp_path: Path, name: str) -> None:
    assert_says(
        answer(found, stored(tmp_path, x=NO_COUNTS[name](counts()))), "X of atlas.h5ad", "no raw counts"
    )


def of_cohort(values: Values) -> Values:
    """The values of the nuclei that are taken, in the order of a cohort."""
    adata = builders.atlas(4, 3, nuclei=10, genes=40)
    adata.X = values
    return np.asarray(builders.arranged(adata[adata.obs["Subclass"] == "Oligodendrocyte"]).X)


@pytest.mark.parametrize("place", [*USUAL, "raw/X", "X", "other"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 99))
def test_counts_are_found_wherever_they_are_beside_their_logarithms(
    tmp_path_factory: pytest.TempPathFactory, place: str, seed: int
) -> None:
    folder, values = tmp_path_factory.mktemp("atlas"), counts(seed)
    x = values if place == "X" else logged(values)
    layers = {} if place in ("raw/X", "X") else {place: values}
    path = stored(folder, x=x, raw=values if place == "raw/X" else None, **layers)
    cohort = builders.read(path)
    assert cohort.expression.content == "counts"
    np.testing.assert_array_equal(builders.counts(cohort), of_cohort(values))


def test_a_layer_without_a_usual_name_comes_after_raw_and_x(tmp_path: Path) -> None:
    other = counts(5)
    assert found(stored(tmp_path, x=counts(), other=other)).matrix == "X"
    assert found(stored(tmp_path, x=logged(counts()), raw=counts(), other=other)).matrix == "raw/X"


def test_raw_comes_before_x_unless_it_is_a_part_of_x(tmp_path: Path) -> None:
    assert found(stored(tmp_path, x=counts(), raw=counts(5))).matrix == "raw/X"
    assert found(stored(tmp_path, x=np.floor(0.8 * counts()), raw=counts())).matrix == "raw/X"
    assert found(stored(tmp_path, x=counts(), raw=np.floor(0.8 * counts()))).matrix == "X"


def test_the_case_of_a_usual_name_does_not_matter(tmp_path: Path) -> None:
    assert found(stored(tmp_path, x=counts(), COUNTS=counts(5))).matrix == "layers/COUNTS"


@pytest.mark.parametrize("value", [-1, 0.5, 2.0**25])
def test_values_that_no_sample_has_seen_are_checked_as_they_are_read(tmp_path: Path, value: float) -> None:
    adata = builders.atlas(4, 3, nuclei=100, genes=40)
    adata.X[210, 3] = value
    path = builders.write(adata, tmp_path)
    assert found(path).content == "counts"
    assert adata.obs["Subclass"].iloc[210] == "Oligodendrocyte"
    assert_says(answer(builders.read, path), "X of atlas.h5ad holds", "among raw counts")


def test_parts_of_the_counts_are_no_counts(tmp_path: Path) -> None:
    whole, parts = counts(), [0.05, 0.7, 0.3]
    layers = dict(
        zip(("ambiguous", "spliced", "unspliced"), (np.floor(part * whole) for part in parts), strict=True)
    )
    assert found(stored(tmp_path, x=whole, **layers)).matrix == "X"
    assert found(stored(tmp_path, x=logged(whole), total=whole, **layers)).matrix == "layers/total"
    assert_says(
        answer(found, stored(tmp_path, x=logged(whole), **layers)), "several layers", "layers/spliced"
    )


def test_several_layers_that_may_be_counts_are_refused_with_the_words_to_choose_one(tmp_path: Path) -> None:
    path = stored(tmp_path, x=logged(counts()), one=counts(1), two=counts(2))
    assert_says(answer(found, path), "layers/one", "layers/two", "data.counts=one")
    assert found(path, "two").matrix == "layers/two"


def test_other_whole_numbers_in_x_are_told(tmp_path: Path) -> None:
    path = stored(tmp_path, x=counts(), counts=np.floor(0.8 * counts()))
    (note,) = builders.read(path).notes
    assert_says(note, "X holds other whole numbers than layers/counts", "data.counts=X")
    assert found(stored(tmp_path, x=counts(), counts=counts())).notes == ()


def test_a_mask_that_the_user_names_is_taken_with_a_doubt(tmp_path: Path) -> None:
    expression = found(stored(tmp_path, x=counts() > 0), "X")
    assert "only 0 and 1" in expression.doubt
    assert expression.doubt in expression.notes


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float16, np.float64])
@pytest.mark.parametrize("dense", [False, True])
def test_counts_of_any_type_are_the_same_counts(tmp_path: Path, dtype: Any, dense: bool) -> None:
    adata = builders.atlas(4, 3, nuclei=10, genes=40)
    plain = builders.counts(builders.read(builders.write(adata, tmp_path, "plain.h5ad")))
    adata.X = adata.X.toarray().astype(dtype)
    if not dense and dtype is not np.float16:
        adata.X = sp.csr_matrix(adata.X)
    np.testing.assert_array_equal(
        builders.counts(builders.read(builders.write(adata, tmp_path))), plain, strict=True
    )


def test_counts_that_half_precision_has_rounded_are_refused(tmp_path: Path) -> None:
    adata = builders.atlas(4, 3, nuclei=10, genes=40)
    adata.X = (adata.X.toarray() * np.arange(1, 41) * 30).astype(np.float16)
    adata.X[:, 0] = 1 + np.arange(len(adata)) % 2
    assert_says(answer(found, builders.write(adata, tmp_path)), "half precision")


# Logarithms

TARGETS = pytest.mark.parametrize("target", [1.0, 1e3, 1e4, 1e6])


@TARGETS
@pytest.mark.parametrize("base", [np.e, 2.0, 10.0])
def test_logarithms_of_any_base_are_read_as_natural_ones(tmp_path: Path, base: float, target: float) -> None:
    natural = logged(counts(), target)
    cohort = builders.read(stored(tmp_path, x=natural / np.log(base)))
    np.testing.assert_allclose(builders.log_values(cohort), of_cohort(natural), rtol=3e-7)
    assert builders.log_values(cohort).dtype == np.float32
    assert [f"base {base:.0f}" in note for note in cohort.notes].count(True) == (base != np.e)
    assert any("not to 10,000" in note for note in cohort.notes) == (target != 1e4)
    assert cohort.expression.doubt == ""


NO_LOGARITHMS: dict[str, tuple[Callable[[Values], Values], str]] = {
    "fractions": (share, "every nucleus sums to 1"),
    "per million": (lambda c: 1e6 * share(c), "every nucleus sums to 1e+06"),
    "square roots": (np.sqrt, "square roots"),
    "square roots of shares": (lambda c: np.sqrt(1e4 * share(c)), "square roots"),
    "of raw counts": (np.log1p, "base e) of raw counts"),
    "to the base 2, of raw counts": (lambda c: np.log2(1 + c), "base 2) of raw counts"),
    "to the base 10, of raw counts": (lambda c: np.log10(1 + c), "base 10) of raw counts"),
    "twice": (lambda c: np.log1p(logged(c)), "log-transformed twice"),
    "rounded": (lambda c: np.round(logged(c)), "no raw counts"),
    "residuals": (lambda c: logged(c) - logged(c).mean(axis=0), "it was scaled"),
    "empty": (lambda c: 0 * c, "zeros only"),
}


@pytest.mark.parametrize("name", NO_LOGARITHMS)
def test_what_is_no_logarithm_of_normalised_counts_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    change, words = NO_LOGARITHMS[name]
    assert_says(answer(found, stored(tmp_path, x=change(counts()))), words)


def test_logarithms_that_cannot_be_recomputed_are_a_doubt(tmp_path: Path) -> None:
    values = logged(counts())
    values[:, :20] = 0
    cohort = builders.read(stored(tmp_path, x=values))
    assert "do not sum to the same" in cohort.expression.doubt
    assert cohort.about["doubt about expression"] == cohort.expression.doubt
    assert cohort.expression.doubt in cohort.notes


def test_counts_that_are_passed_over_are_told(tmp_path: Path) -> None:
    corrected = 0.83 * counts() * np.where(counts() % 2, 1, 1 / 0.83)
    expression = found(stored(tmp_path, x=logged(counts()), counts=corrected))
    assert_says(expression.notes[0], "layers/counts is passed over", "fractions")
    refused = answer(found, stored(tmp_path, x=counts() - 2, counts=corrected))
    assert_says(refused, "layers/counts holds fractions", "corrected or expected counts are not raw counts")


def test_log_values_in_raw_are_taken_where_x_was_scaled(tmp_path: Path) -> None:
    expression = found(stored(tmp_path, x=counts() - 2, raw=logged(counts())))
    assert (expression.matrix, expression.content) == ("raw/X", "log")


def test_sparse_counts_of_few_nuclei_are_counts() -> None:
    rows = sp.csr_matrix(np.random.default_rng(0).poisson(0.02, (300, 500)))
    assert flaw_of_counts(rows) is None


@pytest.mark.parametrize(("spread", "flawed"), [(0, True), (5, True), (300, False)])
def test_nuclei_of_nearly_the_same_sum_were_made_equal(spread: int, flawed: bool) -> None:
    rng = np.random.default_rng(0)
    chance = rng.dirichlet(np.full(200, 0.5))
    depths = 1000 + rng.integers(-spread, spread + 1, 50)
    rows = sp.csr_matrix(np.stack([rng.multinomial(depth, chance) for depth in depths]))
    assert ("the same sum in every nucleus" in str(flaw_of_counts(rows))) == flawed


# Nuclei that only another matrix knows


def joined(values: Values, n: int) -> Values:
    """A layer that only the first donors' data set has."""
    donors = np.tile(np.arange(7), 10)
    out: Values = values * (donors < n)[:, None]
    return out


def test_a_layer_that_some_donors_lack_is_refused_naming_them(tmp_path: Path) -> None:
    path = stored(tmp_path, x=counts(), counts=joined(counts(), 5))
    assert_says(
        answer(builders.read, path),
        "layers/counts of atlas.h5ad holds nothing of 10 nuclei of 2 donors (D05, D06)",
        "in X",
        "data.counts=X",
    )
    assert len(builders.read(path, "data.counts=X").donors) == 7


def test_a_layer_that_one_nucleus_lacks_is_refused(tmp_path: Path) -> None:
    lacking = counts()
    lacking[15] = 0
    path = stored(tmp_path, x=logged(counts()), counts=lacking)
    message = answer(builders.read, path)
    assert_says(message, "1 nuclei of 1 donors", "in X")
    assert "data.counts=X" not in message


def test_nuclei_that_are_empty_everywhere_or_scaled_elsewhere_are_left_to_quality_control(
    tmp_path: Path,
) -> None:
    values = counts()
    values[15] = 0
    x = np.log1p(values) - 1
    assert len(builders.read(stored(tmp_path, x=x, counts=values)).cells) == 34
    assert len(builders.read(stored(tmp_path, x=values, counts=values)).cells) == 34


def test_a_donor_whom_quality_control_leaves_nothing_of_is_told(tmp_path: Path) -> None:
    cohort = builders.read(stored(tmp_path, x=joined(counts(), 6)))
    assert len(cohort.donors) == 6
    (note,) = cohort.notes
    assert_says(note, "nothing of 1 of 7 donors with 5 nuclei", "D06")


# Inspect


@pytest.mark.parametrize("wanted", ["auto", "none", "X", "raw", "one"])
@pytest.mark.parametrize("case", ["counts", "logs", "several", "masks", "none"])
def test_inspect_prints_what_a_run_decides(tmp_path: Path, case: str, wanted: str) -> None:
    paths: dict[str, dict[str, Any]] = {
        "counts": {"x": logged(counts()), "raw": counts(), "one": counts() > 0},
        "logs": {"x": logged(counts()) / np.log(2)},
        "several": {"x": logged(counts()), "one": counts(1), "two": counts(2)},
        "masks": {"x": counts() > 0, "one": counts()},
        "none": {"one": counts()},
    }
    path = stored(tmp_path, **paths[case])
    text = describe(builders.configuration(f"data.path={path}", f"data.counts={wanted}"))
    try:
        cohort = builders.read(path, f"data.counts={wanted}")
    except UserError as error:
        refused = f"expression: REFUSED. {error}"
    else:
        refused = ""
        assert f"expression: {cohort.expression.evidence}" in text
        assert all(f"note: {note}" in text for note in cohort.expression.notes)
        for one in cohort.expression.candidates:
            assert f"{one.matrix} ({one.layout}): {one.seen}; {one.verdict}" in text
        taken = [one.matrix for one in cohort.expression.candidates if "taken as" in one.verdict]
        assert taken == [cohort.expression.matrix]
    assert refused in text


def test_a_cohort_from_the_cache_keeps_what_was_seen(tmp_path: Path) -> None:
    path = stored(tmp_path, x=counts(), counts=np.floor(0.8 * counts()))
    made, kept = builders.load(path), builders.load(path)
    assert kept.expression.candidates == made.expression.candidates != ()
    assert kept.expression.notes == made.expression.notes
    assert kept.notes == made.notes


def test_inspect_tells_of_the_genes_that_a_run_reads(tmp_path: Path) -> None:
    adata = builders.atlas(4, 3, nuclei=10, genes=40)
    whole = adata.copy()
    whole.var_names = [f"GRCh38_{name}" for name in whole.var_names]
    adata = ad.AnnData(sp.csr_matrix(logged(adata.X.toarray())[:, :30]), adata.obs, adata.var[:30])
    adata.raw = whole
    path = builders.write(adata, tmp_path)
    text = describe(builders.configuration(f"data.path={path}"))
    (note,) = [note for note in builders.read(path).notes if "begin with a genome" in note]
    assert_says(text, note, f"{len(adata)} nuclei x 40 genes")
