"""The model of one fold: everything in it is fitted on the fold's training donors, or not fitted at all."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from accelerate import Accelerator
from torch import nn

from oligo_ad.config import Config
from oligo_ad.data.cohort import Cohort
from oligo_ad.data.contrast import Contrast
from oligo_ad.data.covariates import Coding, fit_coding
from oligo_ad.data.split import Fold
from oligo_ad.facts import Epoch
from oligo_ad.inputs.featurizers import Featurizer
from oligo_ad.inputs.loader import Loader
from oligo_ad.models.build import make_classifier, make_featurizer
from oligo_ad.models.classifier import Classifier
from oligo_ad.models.pretrained import Pretrained
from oligo_ad.scores import donor_scores, probability_of
from oligo_ad.training.attention import attention_kernels
from oligo_ad.training.checkpoint import Bundle, Usage
from oligo_ad.training.fit import EVALUATION_BATCH, Fitted, Samples, fit
from oligo_ad.training.predict import donors_of, make_loader, predict, prediction_table

TRIAL_BATCH = 16  # samples, for finding which attention kernel runs


@dataclass(frozen=True)
class FoldModel:
    """The model of one fold, with the data that it is trained and scored on.

    `samples`: places in the loader, by part of the fold; `label` [samples of the loader].
    """

    config: Config
    contrast: Contrast
    fold: Fold
    pretrained: Pretrained | None
    accelerator: Accelerator
    featurizer: Featurizer
    coding: Coding
    classifier: Classifier
    loader: Loader
    samples: dict[str, np.ndarray]
    label: np.ndarray

    def kernels(self) -> list[str]:
        """The attention kernels of a training step."""
        train, seed = self.samples["train"], self.config.seed
        batch_size = min(self.config.fit.batch_size, TRIAL_BATCH, self.loader.epoch_size(train))
        with self.accelerator.autocast():
            batch = next(self.loader.shuffled(train, batch_size, seed, epoch=0))
            return attention_kernels(self.classifier.to(self.accelerator.device), batch)

    def fit(self, name: str, watch: Callable[[Epoch], None]) -> Fitted:
        """Train the classifier; see `training.fit.fit`."""
        config = self.config
        samples = Samples(self.samples["train"], self.samples["validation"], self.label)
        return fit(
            self.classifier, self.loader, samples, config.fit, config.seed, self.accelerator, name, watch
        )

    def logits(self, model: nn.Module, part: str) -> np.ndarray:
        """Logits of the trained model for the samples of a part, in the order of `samples`."""
        return predict(model, self.loader, self.samples[part], self._batch_size, self.accelerator)

    def predictions(self, logits: dict[str, np.ndarray]) -> pd.DataFrame:
        """The table of predictions, a row per sample of these parts; columns as in `record`."""
        parts = [
            prediction_table(self.contrast.cohort, self.loader, self.samples[part], own).assign(part=part)
            for part, own in logits.items()
        ]
        return pd.concat(parts, ignore_index=True).assign(fold=self.fold.number, seed=self.config.seed)

    def predict_others(self, model: nn.Module, cohort: Cohort, covariates: pd.DataFrame) -> pd.DataFrame:
        """Predictions of the trained model for all donors of another cohort, columns as in `record`.

        Args:
            covariates: of these donors, and perhaps of others, NaN where unknown.
        """
        donors = donors_of(cohort, None, self.coding.apply(covariates))
        sample = self.classifier.pool.sample
        bags = self.config.fit.bag_size, 1
        loader = make_loader(cohort, self.featurizer, sample, donors, bags, self.accelerator)
        samples = loader.samples_of(np.arange(len(cohort.donors)))
        logit = predict(model, loader, samples, self._batch_size, self.accelerator)
        table = prediction_table(cohort, loader, samples, logit)
        return table.assign(fold=self.fold.number, seed=self.config.seed, part="test")

    def donor_scores(self, logits: dict[str, np.ndarray]) -> pd.Series:
        """Probabilities by donor id, from the logits of the samples of some parts."""
        table = self.predictions(logits)
        of_nuclei = self.classifier.pool.sample == "nucleus"
        how = self.config.evaluation.donor_score if of_nuclei else "mean"
        return donor_scores(probability_of(table["logit"].to_numpy()), table["donor"].to_numpy(), how)

    def bundle(self, threshold: float, calibration: dict[str, float] | None) -> Bundle:
        """All that is needed to use the trained model elsewhere; see `Usage`."""
        config, genes = self.config, self.contrast.cohort.genes.set_index("name")
        read = genes.reindex(self.featurizer.gene_names)[["symbol", "ensembl"]]
        return Bundle(
            classifier=self.classifier,
            featurizer=self.featurizer,
            genes=read.rename_axis("name").reset_index(),
            covariates=config.metadata.columns,
            coding=self.coding,
            usage=Usage(
                classes=self.contrast.labels.names,
                threshold=threshold,
                donor_score=config.evaluation.donor_score,
                calibration=calibration,
                batch_size=self._batch_size,
                bag_size=config.fit.bag_size,
            ),
            model=config.model,
            fusion=config.metadata.fusion,
            pretrained=self.pretrained,
        )

    @property
    def _batch_size(self) -> int:
        return EVALUATION_BATCH * self.config.fit.batch_size


def prepare_model(
    config: Config, contrast: Contrast, fold: Fold, pretrained: Pretrained | None, accelerator: Accelerator
) -> FoldModel:
    """Featurizer and coding of covariates, fitted on the fold's training donors; an untrained classifier."""
    cohort = contrast.cohort
    featurizer = make_featurizer(config.model, pretrained, config.cache.path, accelerator.device)
    featurizer.fit(cohort, fold.train)
    coding = fit_coding(contrast.covariates.values, fold.train)
    fusion, n_ids = config.metadata.fusion, featurizer.n_ids
    classifier = make_classifier(config.model, fusion, pretrained, n_ids, coding.size)
    donors = donors_of(cohort, contrast.labels.of_donor, coding.apply(contrast.covariates.values))
    bags = config.fit.bag_size, config.fit.bags
    loader = make_loader(cohort, featurizer, classifier.pool.sample, donors, bags, accelerator)
    ids = cohort.donors.index
    return FoldModel(
        config=config,
        contrast=contrast,
        fold=fold,
        pretrained=pretrained,
        accelerator=accelerator,
        featurizer=featurizer,
        coding=coding,
        classifier=classifier,
        loader=loader,
        samples={part: loader.samples_of(ids.get_indexer(own)) for part, own in fold.parts.items()},
        label=donors.label[loader.donor],
    )
