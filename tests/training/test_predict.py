"""Predictions belong to the samples they are of, whatever order tables and batches have."""

import numpy as np
import pandas as pd
import pytest
from accelerate import Accelerator
from torch import Tensor, nn

from oligo_ad.data.cohort import Cohort
from oligo_ad.inputs.batch import Batch
from oligo_ad.inputs.featurizers import StandardisedPanel
from oligo_ad.inputs.loader import Draws, Loader
from oligo_ad.training.predict import donors_of, make_loader, predict, prediction_table
from tests import builders


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Nine donors whose nuclei have a planted truth, another in each."""
    small = builders.cohort(builders.atlas(5, 4, nuclei=12, genes=20), tmp_path_factory.mktemp("predict"))
    truth = np.random.default_rng(0).random(len(small.cells))
    small.cells["truth"] = truth
    return small


def metadata(cohort: Cohort) -> pd.DataFrame:
    return pd.DataFrame({"age": np.arange(len(cohort.donors), dtype=float)}, cohort.donors.index)


def loader(cohort: Cohort, sample: str) -> Loader:
    featurizer = StandardisedPanel(genes="all").fit(cohort, tuple(cohort.donors.index))
    donors = donors_of(cohort, builders.labels(cohort, 5), metadata(cohort))
    return make_loader(cohort, featurizer, sample, donors, Draws(bag_size=4), Accelerator(cpu=True))  # type: ignore[arg-type]


class Index(nn.Module):
    """A model whose logit is the number of the sample."""

    def forward(self, *parts: Batch) -> Tensor:
        return parts[0].index.float()


def test_label_and_metadata_are_found_by_the_name_of_the_donor(cohort: Cohort) -> None:
    given, label = metadata(cohort), builders.labels(cohort, 5)
    found = donors_of(cohort, label.iloc[::-1], given.sample(frac=1, random_state=0))
    assert found.label.tolist() == label.tolist()
    assert found.metadata.tolist() == given.to_numpy().tolist()
    assert (cohort.donors.index[found.of_nucleus] == cohort.cells["donor"]).all()
    assert not donors_of(cohort, None, given).label.any()


@pytest.mark.parametrize("sample", ["nucleus", "donor"])
def test_a_prediction_is_of_its_sample_in_the_order_asked_for(cohort: Cohort, sample: str) -> None:
    made = loader(cohort, sample)
    samples = np.random.default_rng(0).permutation(len(made.donor))[:-2]
    assert predict(Index(), made, samples, 3, Accelerator(cpu=True)).tolist() == samples.tolist()


def test_a_model_predicts_as_if_it_were_not_trained(cohort: Cohort) -> None:
    model = nn.Sequential(Index(), nn.Dropout(0.5)).train()
    found = predict(model, loader(cohort, "nucleus"), np.arange(30), 8, Accelerator(cpu=True))
    assert found.tolist() == list(range(30))


def test_a_table_names_the_donor_and_nucleus_of_each_prediction_and_its_truth(cohort: Cohort) -> None:
    places = np.array([7, 3, 50, 20])
    table = prediction_table(cohort, loader(cohort, "nucleus"), places, places / 10)
    assert table["barcode"].tolist() == cohort.cells["barcode"].iloc[places].tolist()
    assert table["donor"].tolist() == cohort.cells["donor"].iloc[places].tolist()
    assert table["truth"].tolist() == cohort.cells["truth"].iloc[places].tolist()
    assert table["logit"].tolist() == (places / 10).tolist()


def test_the_truth_of_a_donor_is_the_mean_of_its_nuclei(cohort: Cohort) -> None:
    donors = np.array([4, 0, 8])
    table = prediction_table(cohort, loader(cohort, "donor"), donors, donors / 10).set_index("donor")
    assert table.index.tolist() == cohort.donors.index[donors].tolist()
    for donor, truth in table["truth"].items():
        own = cohort.cells["truth"][cohort.cells["donor"] == donor]
        assert truth == pytest.approx(own.mean())
        assert own.std() > 0
