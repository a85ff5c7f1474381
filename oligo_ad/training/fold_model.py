"""The model of one fold: everything in it is fitted on the fold's training donors, or not fitted at all."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from accelerate import Accelerator

from oligo_ad.baselines.linear import inner_folds
from oligo_ad.config import Config
from oligo_ad.data.cohort import Cohort
from oligo_ad.data.contrast import Contrast
from oligo_ad.data.covariates import Coding, fit_coding
from oligo_ad.data.split import Fold
from oligo_ad.errors import UserError
from oligo_ad.facts import Epoch
from oligo_ad.inputs.featurizers import Featurizer
from oligo_ad.inputs.loader import Draws, Loader, Sample
from oligo_ad.models.build import make_classifier, make_featurizer, make_views
from oligo_ad.models.classifier import Classifier
from oligo_ad.models.combination import fit_readers
from oligo_ad.models.pretrained import Pretrained
from oligo_ad.models.views import Known, View
from oligo_ad.scores import donor_scores, probability_of
from oligo_ad.training.attention import attention_kernels
from oligo_ad.training.checkpoint import Bundle, Usage
from oligo_ad.training.fit import EVALUATION_BATCH, Samples
from oligo_ad.training.members import Trained, fit_members
from oligo_ad.training.predict import combined, donors_of, make_loader, predict, prediction_table

TRIAL_BATCH = 16  # samples, for finding which attention kernel runs


@dataclass(frozen=True)
class FoldModel:
    """The model of one fold, with the data that it is trained and scored on.

    `members`: networks, untrained; `views`: what is combined with them. `samples`: places in the loader, by
    part of the fold; with several members every known donor is both a training and a validation donor, since
    some member leaves it out. `plan`: what each member is trained on and leaves out. `known`: the donors that
    several members share out. `label` [samples of the loader].
    """

    config: Config
    contrast: Contrast
    fold: Fold
    pretrained: Pretrained | None
    accelerator: Accelerator
    featurizer: Featurizer
    coding: Coding
    members: tuple[Classifier, ...]
    views: dict[str, View]
    loader: Loader
    samples: dict[str, np.ndarray]
    plan: tuple[Samples, ...]
    known: Known | None
    label: np.ndarray

    def kernels(self) -> list[str]:
        """The attention kernels of a training step."""
        train, seed = self.samples["train"], self.config.seed
        batch_size = min(self.config.fit.batch_size, TRIAL_BATCH, self.loader.epoch_size(train))
        with self.accelerator.autocast():
            batch = next(self.loader.shuffled(train, batch_size, seed, epoch=0))
            return attention_kernels(self.members[0].to(self.accelerator.device), batch)

    def fit(self, name: str, watch: Callable[[Epoch], None]) -> Trained:
        """Train the members, then fit what is combined with them; see `fit_members`."""
        config = self.config
        given = (self.loader, self.plan, config.fit, config.seed, self.accelerator, name, watch)
        trained = fit_members(self.members, *given)
        if not (self.views and self.known):
            return trained
        cohort, held_out = self.contrast.cohort, trained.held_out.copy()
        own = cohort.donors.index.get_indexer(list(self.known.donors))
        fitted = fit_readers(self.views, held_out[own], cohort, self.featurizer, self.known)
        readers, held_out[own] = fitted
        return replace(trained, held_out=held_out, readers=readers)

    def logits(self, trained: Trained, part: str) -> np.ndarray:
        """Logits of the trained model for the samples of a part, in the order of `samples`.

        Those of validation are by members that did not see the donor.
        """
        if part == "validation":
            return trained.held_out[self.samples[part]]
        logit = self.network_logits(trained, part)
        return combined(trained.readers, logit, self.samples[part], self.contrast.cohort, self.featurizer)

    def network_logits(self, trained: Trained, part: str) -> np.ndarray:
        """The same of the network alone."""
        return predict(trained.model, self.loader, self.samples[part], self._batch_size, self.accelerator)

    def predictions(self, logits: dict[str, np.ndarray]) -> pd.DataFrame:
        """The table of predictions, a row per sample of these parts; columns as in `record`."""
        parts = [
            prediction_table(self.contrast.cohort, self.loader, self.samples[part], own).assign(part=part)
            for part, own in logits.items()
        ]
        return pd.concat(parts, ignore_index=True).assign(fold=self.fold.number, seed=self.config.seed)

    def predict_others(self, trained: Trained, cohort: Cohort, covariates: pd.DataFrame) -> pd.DataFrame:
        """Predictions of the trained model for all donors of another cohort, columns as in `record`.

        Args:
            covariates: of these donors, and perhaps of others, NaN where unknown.
        """
        donors = donors_of(cohort, None, self.coding.apply(covariates))
        draws = Draws(bag_size=self.config.fit.bag_size)
        loader = make_loader(cohort, self.featurizer, self.sample, donors, draws, self.accelerator)
        samples = loader.samples_of(np.arange(len(cohort.donors)))
        logit = predict(trained.model, loader, samples, self._batch_size, self.accelerator)
        logit = combined(trained.readers, logit, samples, cohort, self.featurizer)
        table = prediction_table(cohort, loader, samples, logit)
        return table.assign(fold=self.fold.number, seed=self.config.seed, part="test")

    def donor_scores(self, logits: dict[str, np.ndarray]) -> pd.Series:
        """Probabilities by donor id, from the logits of the samples of some parts."""
        table = self.predictions(logits)
        how = self.config.evaluation.donor_score if self.sample == "nucleus" else "mean"
        return donor_scores(probability_of(table["logit"].to_numpy()), table["donor"].to_numpy(), how)

    def bundle(self, trained: Trained, threshold: float, calibration: dict[str, float] | None) -> Bundle:
        """All that is needed to use the trained model elsewhere; see `Usage`."""
        config, genes = self.config, self.contrast.cohort.genes.set_index("name")
        read = genes.reindex(self.featurizer.gene_names)[["symbol", "ensembl"]]
        return Bundle(
            classifier=self.accelerator.unwrap_model(trained.model),
            readers=trained.readers,
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
    def sample(self) -> Sample:
        """What is predicted."""
        return self.members[0].pool.sample

    @property
    def _batch_size(self) -> int:
        return EVALUATION_BATCH * self.config.fit.batch_size


def prepare_model(
    config: Config, contrast: Contrast, fold: Fold, pretrained: Pretrained | None, accelerator: Accelerator
) -> FoldModel:
    """Featurizer and coding of covariates, fitted on the fold's training donors; untrained members.

    Where all development donors are trained on in the end, featurizer and coding are fitted on all of them.

    Raises:
        UserError: more members than a class has donors, or views where the model cannot have them.
    """
    learned_from = fold.development if config.fit.members > 1 or config.fit.refit else fold.train
    cohort, covariates = contrast.cohort, contrast.covariates.values
    featurizer = make_featurizer(config.model, pretrained, config.cache.path, accelerator.device)
    featurizer.fit(cohort, learned_from)
    coding = fit_coding(covariates, learned_from)
    sizes = (config.metadata.fusion, pretrained, featurizer.n_ids, coding.size)
    members = tuple(make_classifier(config.model, *sizes) for _ in range(config.fit.members))
    _check_views(config, members[0].pool.sample)
    donors = donors_of(cohort, contrast.labels.of_donor, coding.apply(covariates))
    fit = config.fit
    draws = Draws(fit.sampling, fit.nuclei, fit.bag_size, fit.bags)
    loader = make_loader(cohort, featurizer, members[0].pool.sample, donors, draws, accelerator)
    known = _known(config, fold, contrast.labels.of_donor) if fit.members > 1 else None

    def samples_of(own: Iterable[str]) -> np.ndarray:
        return loader.samples_of(cohort.donors.index.get_indexer(list(own)))

    inner = known.folds if known else [(fold.train, fold.validation)]
    label = donors.label[loader.donor]
    return FoldModel(
        config=config,
        contrast=contrast,
        fold=fold,
        pretrained=pretrained,
        accelerator=accelerator,
        featurizer=featurizer,
        coding=coding,
        members=members,
        views=make_views(config.model),
        loader=loader,
        samples={
            "train": samples_of(learned_from),
            "validation": samples_of(fold.development if known else fold.validation),
            "test": samples_of(fold.test),
        },
        plan=tuple(Samples(samples_of(own), samples_of(left), label) for own, left in inner),
        known=known,
        label=label,
    )


def _known(config: Config, fold: Fold, label: pd.Series) -> Known:
    """The development donors in inner folds, one for each member, each with donors of both classes.

    Raises:
        UserError: a class has fewer donors than there are members.
    """
    own, n = label[list(fold.development)].to_numpy().astype(float), config.fit.members
    if (fewest := int(min(own.sum(), (1 - own).sum()))) < n:
        raise UserError(
            f"fit.members={n}: fold {fold.number} has {fewest} development donor{'s' * (fewest != 1)} of a "
            f"class, and each member leaves out another one. Use fit.members={max(1, fewest)} or fewer."
        )
    held_out = inner_folds(own, config.seed, n)
    assert held_out is not None
    return Known(fold.development, own, held_out)


def _check_views(config: Config, sample: Sample) -> None:
    if config.model.views and (sample == "nucleus" or config.fit.members == 1):
        raise UserError(
            "model.views are combined with a network that predicts donors, by how well each ranks donors "
            "that it left out: use a pool of nuclei, such as pool=moments, and fit.members=5."
        )
