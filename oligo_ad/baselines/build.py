"""Configuration → baselines of a contrast."""

import logging

import pandas as pd

from oligo_ad.baselines.gene_sets import NO_SETS, read_gene_sets
from oligo_ad.baselines.predictors import Baselines
from oligo_ad.baselines.views import read_views
from oligo_ad.config import EvaluationConfig
from oligo_ad.data.cohort import Cohort
from oligo_ad.data.contrast import Contrast
from oligo_ad.data.covariates import COVARIATES, encode
from oligo_ad.errors import UserError, listing

log = logging.getLogger(__name__)


def make_baselines(contrast: Contrast, config: EvaluationConfig, seed: int) -> Baselines:
    """The baselines of a contrast; age, sex and APOE alleles are read, whatever the model is given.

    Raises:
        UserError: the comparator cannot be computed from this file, or the gene sets cannot be read.
    """
    cohort, label = contrast.cohort, contrast.labels.of_donor
    gene_sets = read_gene_sets(config.gene_sets, cohort.genes) if config.gene_sets else NO_SETS
    views = read_views(cohort, _covariates(cohort), _kinds(cohort, config.composition), gene_sets)
    made = Baselines(views, label, seed)
    if config.comparator not in made.names:
        raise UserError(
            f"evaluation.comparator={config.comparator} cannot be computed here: "
            f"{NEEDS[config.comparator]}. It can be one of {listing(made.names)}."
        )
    return made


NEEDS = {
    "covariates": "the file has no age, sex or APOE genotype that can be used",
    "covariates+pseudobulk": "the file has no age, sex or APOE genotype that can be used",
    "composition": "evaluation.composition names no obs column with two kinds of the chosen nuclei",
    "gene_sets": "evaluation.gene_sets names no file",
}


def _covariates(cohort: Cohort) -> pd.DataFrame:
    """Age, sex and APOE alleles, without a look at labels.

    What separates the classes is not given to a model, but here it shows what is to be beaten.
    """
    return encode(cohort.donors, COVARIATES).dropna(axis=1, how="all")


def _kinds(cohort: Cohort, names: tuple[str, ...]) -> pd.DataFrame:
    """Nuclei of each kind by donor, from the first of these columns that has kinds."""
    for name in names:
        kinds = cohort.nuclei_by(name)
        if kinds.shape[1] > 1:
            log.info("composition: shares of %d kinds of nuclei in obs column %s", kinds.shape[1], name)
            return kinds
    return pd.DataFrame(index=cohort.donors.index)
