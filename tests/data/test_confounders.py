"""Confounders are found however their columns are called, and what defines the label is never one."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from oligo_ad.data.cohort import Cohort
from oligo_ad.data.confounders import read_confounders, read_subgroups
from tests import builders

N = 15  # donors of an atlas: nine positive, six negative
RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(8, 1, N).round(2)
DERIVED = ("Braak", "percent AT8 positive area", "Fresh Brain Weight", "Cognitive Status", "disease batch")

SPELLINGS = (
    "RIN",
    "rin",
    "PMI (hours)",
    "post_mortem_interval",
    "pmi.h",
    "Brain pH",
    "pH",
    "Primary Study Name",
    "seqBatch",
    "Library",
    "BrainBank",
    "brain_bank",
    "Race (choice=White)",
    "Age of death",
    "SEX",
    "Fraction mitochondrial UMIs",
    "percent.mt",
    "Doublet score",
    "APOE4 Status",
    "years_education",
)


def cohort(folder: Path, **obs: Any) -> Cohort:
    adata = builders.atlas(**obs)
    for name in obs:
        adata.obs[name] = stored(adata.obs[name])
    return builders.cohort(adata, folder)


def stored(values: pd.Series) -> pd.Series:
    """As numbers or flags, or else as categories."""
    better = values.infer_objects()
    return better.astype("category") if better.dtype == object else better


def of_nuclei(folder: Path, **obs: Any) -> Cohort:
    """The same with obs columns that are given by nucleus, as a function of donor and turn."""
    adata = builders.atlas()
    donor = np.tile(np.arange(N), adata.n_obs // N)
    turn = np.arange(adata.n_obs) // N
    for name, value in obs.items():
        adata.obs[name] = [value(d, t) for d, t in zip(donor, turn, strict=True)]
    whole = builders.cohort(adata, folder)
    return whole.of(whole.donors.index)


@pytest.mark.parametrize(
    "name",
    SPELLINGS,
)
def test_a_column_is_found_whatever_its_spelling(name: str, tmp_path: Path) -> None:
    adata = builders.atlas()
    donor = adata.obs["Donor ID"].cat.codes.to_numpy()
    adata.obs = adata.obs[["Donor ID", "ADNC", "Subclass"]].assign(**{name: NUMBERS[donor]})
    found = read_confounders(builders.cohort(adata, tmp_path), "ADNC")
    own = [
        name for name in found if name not in ("nuclei", "genes per nucleus", "UMIs per nucleus (mean ln)")
    ]
    assert len(own) == 1
    assert found[own[0]].tolist() == NUMBERS.tolist()


def test_what_defines_the_label_or_follows_from_it_is_none(tmp_path: Path) -> None:
    given = dict.fromkeys(DERIVED, NUMBERS)
    found = read_confounders(cohort(tmp_path, **given, source=["AD"] * 9 + ["control"] * 6), "Source")
    assert set(found) == {
        "age",
        "sex=Female",
        "apoe4",
        "apoe2",
        "genes per nucleus",
        "UMIs per nucleus (mean ln)",
    }
    assert "sex=Female" not in read_confounders(cohort(tmp_path), "Sex")


def test_levels_of_few_donors_are_joined_and_a_level_per_donor_has_no_value(tmp_path: Path) -> None:
    found = read_confounders(
        cohort(
            tmp_path,
            site=["a"] * 5 + ["b"] * 6 + ["c", "c", "d"] + [None],
            method=["v2"] * 7 + ["v3"] * 8,
            library=[f"L{n}" for n in range(N)],
            capture=[f"P{n // 2}" for n in range(N)],
            batch=["one"] * N,
            PMI=["unknown"] * N,
        ),
        "ADNC",
    )
    sites = found.filter(like="site=")
    assert sites.sum().to_dict() == {"site=a": 5, "site=b": 6, "site=other": 3}
    assert sites.iloc[-1].isna().all()
    assert sites.dropna().sum(axis=1).eq(1).all()
    assert [name for name in found if name.startswith("method")] == ["method=v2"]
    assert found[["library", "capture"]].isna().all(axis=None)
    assert not {"batch", "pmi"} & {name.partition("=")[0] for name in found}


def test_of_what_differs_between_nuclei_a_donor_has_the_mean_or_the_shares(tmp_path: Path) -> None:
    found = read_confounders(
        of_nuclei(
            tmp_path,
            Method=lambda d, t: "v2" if d < 6 or (d < 10 and t % 4 < 2) else "v3",
            library=lambda d, t: f"L{d}-{t % 4}",
            **{"Doublet score": lambda d, t: d + t / 100, "CERAD score": lambda d, t: d + t},
        ),
        "ADNC",
    )
    # Oligodendrocytes are every second nucleus of a donor, so one of two in the first half of each four.
    assert found["Method=v2 (share of nuclei)"].tolist() == [1] * 6 + [0.5] * 4 + [0] * 5
    assert found["Doublet score"].to_numpy() == pytest.approx(np.arange(N) + 0.22 / 2)
    assert found["library"].isna().all()
    assert not [name for name in found if "CERAD" in name]


def test_depth_is_counted_or_read_where_the_file_has_no_counts(tmp_path: Path) -> None:
    adata = builders.atlas()
    adata.obs["nCount_RNA"] = np.asarray(adata.X.sum(axis=1)).ravel()
    counted = builders.cohort(adata, tmp_path)
    found = read_confounders(counted, "ADNC")
    own = counted.cells.groupby("donor")
    assert found["UMIs per nucleus (mean ln)"].tolist() == pytest.approx(
        own["total"].apply(lambda total: np.log(total).mean()).tolist()
    )
    assert "nCount_RNA" not in found
    logs = builders.exchanged(counted, builders.log_values(counted), "log")
    found = read_confounders(logs, "ADNC")
    assert "UMIs per nucleus (mean ln)" not in found
    assert found["nCount_RNA"].tolist() == pytest.approx(own["total"].mean().tolist())


def test_the_order_of_nuclei_changes_nothing_and_some_donors_are_enough(tmp_path: Path) -> None:
    adata = builders.atlas(site=[f"s{n % 3}" for n in range(N)])
    adata.obs["RIN"] = NUMBERS[adata.obs["Donor ID"].cat.codes]
    adata.obs["mito"] = RNG.random(adata.n_obs)
    plain = builders.cohort(adata, tmp_path)
    found = read_confounders(plain, "ADNC")
    shuffled = builders.cohort(adata[RNG.permutation(adata.n_obs)].copy(), tmp_path)
    pd.testing.assert_frame_equal(read_confounders(shuffled, "ADNC"), found, check_exact=True)
    few = plain.donors.index[:7]
    own = read_confounders(plain.of(few), "ADNC")
    for name in ("RIN", "mito", "age"):
        assert own[name].tolist() == found.loc[few, name].tolist()


def test_a_file_without_such_columns_has_nuclei_only(tmp_path: Path) -> None:
    adata = builders.atlas()
    adata.obs = adata.obs[["Donor ID", "ADNC", "Subclass"]]
    assert list(read_confounders(builders.cohort(adata, tmp_path), "ADNC")) == [
        "genes per nucleus",
        "UMIs per nucleus (mean ln)",
    ]


# Subgroups


def levels(cohort: Cohort, name: str) -> list[str | None]:
    found = read_subgroups(cohort, builders.labels(cohort), (name,))
    return found[name].tolist()


def test_a_donor_has_the_level_that_its_column_says(tmp_path: Path) -> None:
    race = "Race (choice=White)"
    own = cohort(
        tmp_path,
        **{race: ["Checked", "Unchecked", None] * 5, "fresh=yes": [True, False, False] * 5},
        site=["a", "b=c", "unknown"] * 5,
        date=[20190101, 20190102, 20190103] * 5,
        top=[5] * 9 + [1, 2, 3, 4, 0, 6 - 1],
    )
    assert levels(own, "sex") == ["Female", "Male"] * 7 + ["Female"]
    assert levels(own, "apoe4") == ["0", "1", "0"] * 5
    assert levels(own, race) == ["Checked", "Unchecked", None] * 5
    assert levels(own, "fresh=yes") == ["1", "0", "0"] * 5
    assert levels(own, "site") == ["a", "b=c", None] * 5
    assert levels(own, "date") == ["20190101", "20190102", "20190103"] * 5
    age = own.donors["obs:Age at Death"]
    middle = f"{age.median():g}"
    assert levels(own, "age") == [f"above {middle}" if a > age.median() else f"{middle} or less" for a in age]
    assert levels(own, "top") == ["5"] * 9 + ["below 5"] * 5 + ["5"]


def test_a_donor_whose_nuclei_differ_is_of_several_levels(tmp_path: Path) -> None:
    own = of_nuclei(
        tmp_path,
        Method=lambda d, t: "v2" if d < 6 or (d < 10 and t % 4 < 2) else "v3",
        score=lambda d, t: d + t / 1000,
    )
    assert levels(own, "Method") == ["v2"] * 6 + ["several"] * 4 + ["v3"] * 5
    assert len(set(levels(own, "score"))) == 2


def test_a_column_that_is_not_there_or_has_one_value_is_refused(tmp_path: Path) -> None:
    own = cohort(tmp_path, Method=["v3"] * N, PMI=["unknown"] * N)
    builders.assert_says(builders.answer(levels, own, "Sx"), "evaluation.subgroups", "'Sx'", "Sex")
    builders.assert_says(builders.answer(levels, own, "Method"), "all donors have the same 'Method'")
    builders.assert_says(builders.answer(levels, own, "PMI"), "no 'PMI' that can be used")
