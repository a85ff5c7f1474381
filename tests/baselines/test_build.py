"""Which baselines a file allows; labels have no say in it."""

from dataclasses import replace

import pandas as pd
import pytest

from oligo_ad.baselines.build import make_baselines
from oligo_ad.data.contrast import Contrast
from oligo_ad.errors import UserError
from tests import builders

EVALUATION = builders.configuration().evaluation


@pytest.fixture(scope="module")
def contrast(tmp_path_factory: pytest.TempPathFactory) -> Contrast:
    """Positive donors are older than every other one."""
    adata = builders.atlas(8, 6, nuclei=6, genes=30)
    adata.obs["Age at Death"] += 20.0 * (adata.obs["ADNC"] == "High")
    return builders.contrast(adata, tmp_path_factory.mktemp("build"))


def test_a_covariate_that_separates_the_classes_is_read_all_the_same(contrast: Contrast) -> None:
    scored = make_baselines(contrast, EVALUATION, seed=0).score(contrast.folds[0]).set_index("donor")
    positive = contrast.labels.of_donor[scored.index] == 1
    assert scored.loc[positive, "covariates"].min() > scored.loc[~positive, "covariates"].max()


def test_what_baselines_read_does_not_depend_on_labels(contrast: Contrast) -> None:
    permuted = contrast.permuted(pd.Series("", contrast.labels.of_donor.index), 0, 1)
    own, other = (make_baselines(one, EVALUATION, seed=0).views.covariates for one in (contrast, permuted))
    pd.testing.assert_frame_equal(own, other)


@pytest.mark.parametrize(("name", "reason"), [("composition", "two kinds"), ("gene_sets", "names no file")])
def test_a_comparator_that_the_file_does_not_allow_is_refused(
    contrast: Contrast, name: str, reason: str
) -> None:
    with pytest.raises(UserError, match=f"evaluation.comparator={name} .*{reason}"):
        make_baselines(contrast, replace(EVALUATION, comparator=name, composition=()), seed=0)
