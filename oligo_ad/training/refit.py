"""The whole refit of a run on permuted labels: of its baselines, and of its model."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from accelerate import Accelerator

from oligo_ad.baselines.build import make_baselines
from oligo_ad.baselines.predictors import ENSEMBLE, NETWORK, Baselines
from oligo_ad.config import Config
from oligo_ad.data.contrast import Contrast, open_contrast
from oligo_ad.data.permutation import strata_of
from oligo_ad.data.split import Fold
from oligo_ad.errors import UserError
from oligo_ad.models.pretrained import Pretrained, read_pretrained
from oligo_ad.scores import aurocs
from oligo_ad.training.fold_model import prepare_model
from oligo_ad.training.machine import make_accelerator, seed_everything


@dataclass(frozen=True)
class Refit:
    """What all permutations of a run share; `accelerator`: None where the model is not refitted."""

    config: Config
    contrast: Contrast
    strata: pd.Series
    baselines: Baselines | None
    pretrained: Pretrained | None
    accelerator: Accelerator | None

    def auroc(self, number: int) -> dict[str, float]:
        """Donor AUROC by predictor, mean over folds, of all that is fitted to a permutation's labels.

        Raises:
            UserError: the model's predictions are not finite.
        """
        return self.auroc_of(self.contrast.permuted(self.strata, self.config.seed, number))

    def auroc_of(self, contrast: Contrast) -> dict[str, float]:
        """The same of the labels and folds of a contrast of these donors."""
        label = contrast.labels.of_donor
        by_fold = [self._of_fold(contrast, fold, label) for fold in contrast.folds]
        return {str(name): float(value) for name, value in pd.DataFrame(by_fold).mean(skipna=False).items()}

    def _of_fold(self, contrast: Contrast, fold: Fold, label: pd.Series) -> dict[str, float]:
        scores: dict[str, np.ndarray] = {}
        baselines = self.baselines and self.baselines.relabelled(label)
        if self.accelerator:
            model, network = self._model_scores(contrast, fold, self.accelerator)
            scores["model"] = model[list(fold.test)].to_numpy()
            if network is not None:
                scores[NETWORK] = network[list(fold.test)].to_numpy()
            if baselines:
                scores[ENSEMBLE] = baselines.ensemble(fold, model)
        if baselines:
            table = baselines.score(fold)
            scores |= {name: table[name].to_numpy() for name in baselines.names}
        own = label[list(fold.test)].to_numpy()
        return dict(zip(scores, aurocs(own, np.stack(list(scores.values()))), strict=True))

    def _model_scores(
        self, contrast: Contrast, fold: Fold, accelerator: Accelerator
    ) -> tuple[pd.Series, pd.Series | None]:
        """Scores of donors that a model which is trained anew has not seen, and of its network alone, where
        that is combined with other views."""
        seed_everything(self.config.seed, fold.number)
        model = prepare_model(self.config, contrast, fold, self.pretrained, accelerator)
        fitted = model.fit("", lambda epoch: None)
        logits = {part: model.logits(fitted, part) for part in ("validation", "test")}
        network = model.network_logits(fitted, "test") if fitted.readers else None
        accelerator.free_memory()
        if not all(np.isfinite(own).all() for own in logits.values()):
            raise UserError(f"predictions of fold {fold.number} are not finite")
        alone = None if network is None else model.donor_scores({"test": network})
        return model.donor_scores(logits), alone


def open_refit(config: Config, folds: list[Fold], with_model: bool) -> Refit:
    """Open the contrast of a run from the cache.

    Args:
        config: of the run.
        folds: of the run.
        with_model: whether its model is refitted too, or its baselines only.

    Raises:
        UserError: as `open_contrast` and `strata_of`.
    """
    contrast = open_contrast(config.data, config.split, config.metadata, config.cache.path)
    strata = strata_of(contrast.cohort.donors, contrast.labels.of_donor, config.evaluation.strata)
    wanted = config.evaluation.baselines
    return Refit(
        config=config,
        contrast=replace(contrast, folds=folds),
        strata=strata,
        baselines=make_baselines(contrast, config.evaluation, config.seed) if wanted else None,
        pretrained=read_pretrained(config.model) if with_model else None,
        accelerator=_quiet_accelerator(config) if with_model else None,
    )


def _quiet_accelerator(config: Config) -> Accelerator:
    """One that tracks nothing; what it may write goes to a folder that nobody reads."""
    return make_accelerator(replace(config, tracker="none"), Path(tempfile.gettempdir()))[0]
