"""No baseline lets a test donor move what is fitted, or what another test donor gets: to the last bit."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from oligo_ad.baselines.gene_sets import GeneSets
from oligo_ad.baselines.predictors import RIVALS, Baselines
from oligo_ad.baselines.views import Views
from oligo_ad.data.axes import Spread
from oligo_ad.data.split import Fold

DONORS = pd.Index([f"D{n:02d}" for n in range(30)])
LABEL = pd.Series([1] * 18 + [0] * 12, DONORS)
TEST = tuple(DONORS[[14, 15, 27, 28, 29]])
VALIDATION = tuple(DONORS[[12, 13, 26]])
FOLD = Fold(1, tuple(donor for donor in DONORS if donor not in TEST + VALIDATION), VALIDATION, TEST)
SPOILED = TEST[0]
GENES = 60


def views() -> Views:
    """Donors whose labels show a little in everything; the last genes are silent in half of them."""
    rng, n = np.random.default_rng(0), len(DONORS)
    signal = 0.8 * LABEL.to_numpy()[:, None]
    expression = np.maximum(rng.normal(1, 1, (n, GENES)) + signal * (np.arange(GENES) < 15), 0)
    expression[:, 40:] *= rng.random((n, GENES - 40)) < 0.5
    sex = (rng.random((n, 1)) < 0.5) * 1.0
    spread = Spread(*(rng.normal(size=(n, 4)) + signal for _ in range(3)))
    kinds = rng.integers(20, 60, (n, 3)) + (20 * signal * [1, 0, 0]).astype(int)
    return Views(
        donors=DONORS,
        covariates=pd.DataFrame(np.c_[rng.normal(80, 5, (n, 1)) + 3 * signal, sex], DONORS, ["age", "sex=F"]),
        depth=pd.DataFrame(rng.normal(size=(n, 3)) + signal, DONORS),
        pseudobulk=expression,
        composition=pd.DataFrame(kinds, DONORS, ["a", "b", "c"]),
        gene_sets=GeneSets({"first": np.arange(10), "last": np.arange(35, GENES)}),
        spread=lambda known: spread,
    )


def spoiled(part: str) -> Baselines:
    """One test donor's values are beyond recognition, and it alone has nuclei of a fourth kind."""
    made, label = views(), LABEL.copy()
    if part == "label":
        label[SPOILED] = 1 - label[SPOILED]
    elif part == "pseudobulk":
        made.pseudobulk[DONORS.get_loc(SPOILED)] = np.arange(GENES)[::-1] * 1000.0
    elif part == "axes":
        spread = Spread(*(values.copy() for values in made.spread(FOLD.development)))
        for values in spread:
            values[DONORS.get_loc(SPOILED)] = 1e6
        made = replace(made, spread=lambda known: spread)
    else:
        table = getattr(made, part).copy()
        if part == "composition":
            table.insert(0, "aa", 0)
        table.loc[SPOILED] = np.nan if part == "covariates" else 10**6
        made = replace(made, **{part: table})
    return Baselines(made, label, seed=0)


@pytest.mark.parametrize("part", ["covariates", "depth", "pseudobulk", "axes", "composition", "label"])
def test_a_test_donor_moves_nothing_but_its_own_score(part: str) -> None:
    clean, other = Baselines(views(), LABEL, seed=0), spoiled(part)
    first, second = (made.score(FOLD).set_index("donor") for made in (clean, other))
    assert list(first) == ["fold", *RIVALS]
    pd.testing.assert_frame_equal(first.drop(SPOILED), second.drop(SPOILED), check_exact=True)
    inner, same = (made._regressed(FOLD.development, FOLD.test) for made in (clean, other))
    assert {name: own.inner.tolist() for name, own in inner.items()} == {
        name: own.inner.tolist() for name, own in same.items()
    }
    if part in RIVALS:
        assert first.loc[SPOILED, part] != second.loc[SPOILED, part]
