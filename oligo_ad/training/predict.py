"""Prediction: logits of any samples, in any number of processes."""

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import nn

from oligo_ad.data.cohort import Cohort
from oligo_ad.data.covariates import encode
from oligo_ad.inputs.featurizers import Featurizer
from oligo_ad.inputs.loader import (
    BagLoader,
    Donors,
    Draws,
    Loader,
    NucleusLoader,
    NucleusStore,
    Process,
    Sample,
)
from oligo_ad.models.combination import Readers
from oligo_ad.training.checkpoint import Bundle


def make_loader(
    cohort: Cohort,
    featurizer: Featurizer,
    sample: Sample,
    donors: Donors,
    draws: Draws,
    accelerator: Accelerator,
) -> Loader:
    """Batches of a cohort for a model.

    Args:
        cohort: nuclei and donors.
        featurizer: fitted.
        sample: what a sample of the model is.
        donors: see `donors_of`.
        draws: of an epoch of training.
        accelerator: device and processes.
    """
    process = Process(accelerator.process_index, accelerator.num_processes)
    tokens = featurizer.tokens(cohort)
    store = NucleusStore(featurizer, tokens, donors, accelerator.device, process)
    return (BagLoader if sample == "donor" else NucleusLoader)(store, donors, draws)


def donors_of(cohort: Cohort, label: pd.Series | None, metadata: pd.DataFrame) -> Donors:
    """The donors of a cohort, as a loader needs them.

    Args:
        cohort: nuclei and donors.
        label: 0 or 1 by donor id; None where it is not known, or must not be.
        metadata: [donors, M], by donor id.
    """
    ids = cohort.donors.index
    known = np.zeros(len(ids)) if label is None else label[ids].to_numpy()
    return Donors(ids.get_indexer(cohort.cells["donor"]), known, metadata.loc[ids].to_numpy())


@torch.no_grad()
def predict(
    model: nn.Module, loader: Loader, samples: np.ndarray, batch_size: int, accelerator: Accelerator
) -> np.ndarray:
    """One logit for each of the samples, in their order; the same in every process."""
    model.eval()
    index, logit = [], []
    for parts in loader.whole(samples, batch_size):
        index.append(parts[0].index)
        logit.append(model(*parts))
    # Predictions are gathered, never averages: processes hold different samples.
    every_index, every_logit = accelerator.gather((torch.cat(index), torch.cat(logit)))
    found = np.full(int(samples.max()) + 1, np.nan)
    found[every_index.cpu().numpy()] = every_logit.float().cpu().numpy()
    return found[samples]


def combined(
    readers: Readers | None, logit: np.ndarray, samples: np.ndarray, cohort: Cohort, featurizer: Featurizer
) -> np.ndarray:
    """Logits of a network's samples, with what it is combined with; as they are where it is alone."""
    if not readers:
        return logit
    network = pd.Series(logit, cohort.donors.index[samples])
    return readers.logits(network, cohort, featurizer).to_numpy()


def prediction_table(cohort: Cohort, loader: Loader, samples: np.ndarray, logit: np.ndarray) -> pd.DataFrame:
    """donor, barcode (None where a donor is a sample), logit; for a simulated cohort also `truth`."""
    cells = cohort.cells
    if loader.sample == "donor":
        table = pd.DataFrame({"donor": cohort.donors.index[samples], "barcode": None, "logit": logit})
        truth = cells.groupby("donor")["truth"].mean() if "truth" in cells else None
        return table if truth is None else table.assign(truth=truth[table["donor"]].to_numpy())
    columns = ["donor", "barcode", *(["truth"] if "truth" in cells else [])]
    return cells.iloc[samples][columns].reset_index(drop=True).assign(logit=logit)


def predict_cohort(bundle: Bundle, cohort: Cohort, accelerator: Accelerator) -> pd.DataFrame:
    """Predictions of a trained model for a cohort, labelled or not; columns as in `prediction_table`."""
    metadata = bundle.coding.apply(encode(cohort.donors, bundle.covariates))
    donors, usage = donors_of(cohort, None, metadata), bundle.usage
    sample = bundle.classifier.pool.sample
    loader = make_loader(
        cohort, bundle.featurizer, sample, donors, Draws(bag_size=usage.bag_size), accelerator
    )
    samples = loader.samples_of(np.arange(len(cohort.donors)))
    model = accelerator.prepare(bundle.classifier)
    logit = predict(model, loader, samples, usage.batch_size, accelerator)
    logit = combined(bundle.readers, logit, samples, cohort, bundle.featurizer)
    return prediction_table(cohort, loader, samples, logit)
