"""A whole run, top to bottom: contrast → folds; each is trained, predicted and recorded → report."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import NamedTuple

import numpy as np
import pandas as pd
from accelerate import Accelerator

from oligo_ad.config import Config, MetadataConfig
from oligo_ad.data.contrast import Contrast, open_contrast
from oligo_ad.data.covariates import COVARIATES, Coding, fit_coding, read_covariates
from oligo_ad.data.split import PARTS, Fold, write_split
from oligo_ad.errors import UserError
from oligo_ad.inputs.featurizers import Featurizer
from oligo_ad.inputs.loader import Loader
from oligo_ad.models.build import make_classifier, make_featurizer
from oligo_ad.models.classifier import Classifier
from oligo_ad.models.pool import Sample
from oligo_ad.models.pretrained import Pretrained, read_pretrained
from oligo_ad.record import FOLDS, SPLIT, DonorFacts, Epoch, FoldHistory, Record, RunFacts, probability_of
from oligo_ad.results.baselines import Baselines
from oligo_ad.results.environment import environment
from oligo_ad.results.metrics import best_threshold
from oligo_ad.results.report import conclude
from oligo_ad.results.tracking import track
from oligo_ad.storage.shelf import claimed
from oligo_ad.training.attention import attention_kernels
from oligo_ad.training.checkpoint import Bundle, Usage, save_bundle
from oligo_ad.training.fit import EVALUATION_BATCH, Samples, fit, make_optimizer
from oligo_ad.training.machine import make_accelerator, seed_everything, start_tracker
from oligo_ad.training.predict import donors_of, make_loader, predict, prediction_table

log = logging.getLogger(__name__)

TRIAL_BATCH = 16  # samples to see which attention kernel runs
SLOW_ATTENTION = (
    "attention leaves the flash kernel: slower, and more memory. It needs attention_dropout=0 on a CPU, "
    "and precision=bf16 or fp16 on a GPU"
)
ELSEWHERE = "Choose another hydra.run.dir, or leave it out."


@dataclass(frozen=True)
class Run:
    """What all folds share.

    `sample`: what the model predicts. `baselines`: None where none is asked for. `started`: by the clock of
    `time.perf_counter`.
    """

    config: Config
    record: Record
    accelerator: Accelerator
    contrast: Contrast
    pretrained: Pretrained | None
    sample: Sample
    baselines: Baselines | None
    started: float

    @property
    def writes(self) -> bool:
        """Whether this process writes: the first of all does."""
        return bool(self.accelerator.is_main_process)


def train(config: Config, folder: Path) -> float | None:
    """Every fold is trained and its test donors are scored.

    Returns:
        Donor AUROC, mean over folds; None in all processes but the first.
    """
    with opened(config, folder) as run:
        begin(run)
        for fold in run.contrast.folds:
            train_fold(run, fold)
        return finish(run)


@contextmanager
def opened(config: Config, folder: Path) -> Iterator[Run]:
    """What all folds share; every mistake that can be found before the data are read is found then."""
    started = time.perf_counter()
    pretrained = read_pretrained(config.model)
    sample = _check_components(config, pretrained)
    accelerator, folder = make_accelerator(config, folder)
    record = Record(folder)
    busy = f"another run is at work in {folder}."
    with claimed(folder, busy, ELSEWHERE) if accelerator.is_main_process else nullcontext():
        if record.finished:
            raise UserError(f"{folder} already holds a finished run. {ELSEWHERE}")
        with accelerator.main_process_first():
            contrast = open_contrast(config.data, config.split, config.metadata, config.cache.path)
        for note in contrast.notes:
            log.warning(note)
        start_tracker(accelerator, config, folder)
        baselines = _baselines(contrast, config.seed) if config.evaluation.baselines else None
        yield Run(config, record, accelerator, contrast, pretrained, sample, baselines, started)
    accelerator.end_training()


def begin(run: Run) -> None:
    """Write down what was found, before anything is trained."""
    if not run.writes:
        return
    config, record, contrast = run.config, run.record, run.contrast
    # What a run that was killed has left here would pass for this one's.
    rmtree(record.folder / FOLDS, ignore_errors=True)
    with _writing(record):
        record.write_config(asdict(config))
        write_split(contrast.folds, contrast.labels.of_donor, config.split, record.folder / SPLIT)
        record.write_facts(_facts(run))


class Model(NamedTuple):
    """A model of one fold with what it is trained and scored on: `samples` by part, places in the loader."""

    featurizer: Featurizer
    coding: Coding
    classifier: Classifier
    loader: Loader
    samples: dict[str, np.ndarray]
    label: np.ndarray


def train_fold(
    run: Run, fold: Fold, is_trial: bool = False, watch: Callable[[Epoch], None] = lambda epoch: None
) -> FoldHistory:
    """Fit everything on the training donors of one fold, predict its donors, and record both.

    Nothing of a test donor is looked at before `predict`; in a trial of a search, nothing ever.
    """
    started, config, accelerator = time.perf_counter(), run.config, run.accelerator
    seed_everything(config.seed, fold.number)
    model = _prepared(run, fold)
    kernels = _kernels(run, model)
    if fold is run.contrast.folds[0] and not all("flash" in kernel for kernel in kernels):
        log.warning("%s (attention runs on: %s)", SLOW_ATTENTION, ", ".join(kernels))
    samples = Samples(model.samples["train"], model.samples["validation"], model.label)
    name = f"fold_{fold.number}/" if len(run.contrast.folds) > 1 else ""
    fitted = fit(model.classifier, model.loader, samples, config.fit, config.seed, accelerator, name, watch)
    batch_size = EVALUATION_BATCH * config.fit.batch_size
    logit = {
        part: predict(fitted.model, model.loader, model.samples[part], batch_size, accelerator)
        for part in (PARTS[:2] if is_trial else PARTS)
    }
    accelerator.free_memory()
    # Baselines predict test donors, which a trial of a search must not score.
    scores = run.writes and not is_trial
    baselines = run.baselines.score(fold) if run.baselines and scores else None
    history = FoldHistory(
        fold=fold.number,
        seed=config.seed,
        donors={part: len(getattr(fold, part)) for part in PARTS},
        pos_weight=fitted.pos_weight,
        best_epoch=fitted.best_epoch,
        threshold=_threshold(config, model, logit["validation"]),
        genes=model.featurizer.gene_names,
        input=model.featurizer.facts(),
        parameters=sum(p.numel() for p in model.classifier.parameters() if p.requires_grad),
        attention=kernels,
        seconds=time.perf_counter() - started,
        epochs=list(fitted.history),
    )
    if run.writes:
        with _writing(run.record), run.record.fold(fold.number) as writer:
            if not is_trial:
                save_bundle(_bundle(run, model, history), writer.model)
            writer.write(history, _predictions(run, model, history, logit), baselines)
    return history


def finish(run: Run, objective: dict[str, object] | None = None) -> float | None:
    """Draw what follows from the record; the first process does, and then knows the headline."""
    headline = None
    if run.writes:
        with _writing(run.record):
            summary, pictures = conclude(run.record, objective)
            track(summary, pictures, run.accelerator)
            headline = summary.evaluation.headline
    run.accelerator.wait_for_everyone()
    return headline


def _prepared(run: Run, fold: Fold) -> Model:
    """Featurizer and coding of covariates, fitted on training donors; an untrained classifier; batches."""
    config, cohort, contrast, accelerator = run.config, run.contrast.cohort, run.contrast, run.accelerator
    featurizer = make_featurizer(config.model, run.pretrained, config.cache.path, accelerator.device)
    featurizer.fit(cohort, fold.train)
    coding = fit_coding(contrast.covariates.values, fold.train)
    classifier = make_classifier(
        config.model, config.metadata.fusion, run.pretrained, featurizer.n_ids, coding.size
    )
    donors = donors_of(cohort, contrast.labels.of_donor, coding.apply(contrast.covariates.values))
    bags = config.fit.bag_size, config.fit.bags
    loader = make_loader(cohort, featurizer, classifier.pool.sample, donors, bags, accelerator)
    ids = cohort.donors.index
    samples = {part: loader.samples_of(ids.get_indexer(getattr(fold, part))) for part in PARTS}
    return Model(featurizer, coding, classifier, loader, samples, donors.label[loader.donor])


def _kernels(run: Run, model: Model) -> list[str]:
    """The attention kernels of a step like those to come."""
    train, seed = model.samples["train"], run.config.seed
    batch_size = min(run.config.fit.batch_size, TRIAL_BATCH, model.loader.epoch_size(train))
    with run.accelerator.autocast():
        batch = next(model.loader.shuffled(train, batch_size, seed, epoch=0))
        return attention_kernels(model.classifier.to(run.accelerator.device), batch)


def _threshold(config: Config, model: Model, logit: np.ndarray) -> float:
    """The probability from which a sample is called positive: given, or the best for validation donors."""
    given = config.evaluation.threshold
    if given == "validation":
        return best_threshold(model.label[model.samples["validation"]], probability_of(logit))
    return float(given)


def _predictions(run: Run, model: Model, history: FoldHistory, logit: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row a sample, as `record` describes them."""
    cohort, loader = run.contrast.cohort, model.loader
    parts = [
        prediction_table(cohort, loader, model.samples[part], own).assign(part=part)
        for part, own in logit.items()
    ]
    return pd.concat(parts, ignore_index=True).assign(fold=history.fold, seed=history.seed)


def _bundle(run: Run, model: Model, history: FoldHistory) -> Bundle:
    config, genes = run.config, run.contrast.cohort.genes.set_index("name")
    read = genes.reindex(model.featurizer.gene_names)[["symbol", "ensembl"]]
    return Bundle(
        classifier=model.classifier,
        featurizer=model.featurizer,
        genes=read.rename_axis("name").reset_index(),
        covariates=config.metadata.columns,
        coding=model.coding,
        usage=Usage(
            classes=run.contrast.labels.names,
            threshold=history.threshold,
            donor_score=config.evaluation.donor_score,
            calibration=None,
            batch_size=EVALUATION_BATCH * config.fit.batch_size,
            bag_size=config.fit.bag_size,
        ),
        model=config.model,
        fusion=config.metadata.fusion,
        pretrained=run.pretrained,
    )


def _facts(run: Run) -> RunFacts:
    contrast, pretrained, accelerator = run.contrast, run.pretrained, run.accelerator
    donors = contrast.cohort.donors["nuclei"].items()
    return RunFacts(
        cohort=contrast.about,
        simulated=contrast.cohort.simulated,
        classes=contrast.labels.names,
        sample=run.sample,
        donors={
            str(donor): DonorFacts(label=int(contrast.labels.of_donor[donor]), nuclei=int(nuclei))
            for donor, nuclei in donors
        },
        flow=contrast.flow.to_dict("records"),
        excluded=contrast.excluded.to_dict("records"),
        notes=list(contrast.notes),
        covariates=list(contrast.covariates.values.columns),
        label_derived=list(contrast.covariates.label_derived),
        pretrained=pretrained.origin if pretrained else None,
        random_weights=pretrained is not None and pretrained.weights is None,
        environment=environment(accelerator.device, accelerator.num_processes),
        words=run.record.words,
        seconds=time.perf_counter() - run.started,
    )


def _check_components(config: Config, pretrained: Pretrained | None) -> Sample:
    """Every component is made once, as small as it can be, before any data are read.

    Returns:
        What the model predicts.
    """
    make_featurizer(config.model, pretrained)
    n_ids = len(pretrained.vocabulary) if pretrained else 2
    classifier = make_classifier(config.model, config.metadata.fusion, pretrained, n_ids, n_metadata=1)
    make_optimizer(classifier, config.fit, steps=1)
    if config.fit.compile and not classifier.network.can_compile:
        recomputed = " with model.adapt.recompute=true" if config.model.adapt.recompute else ""
        raise UserError(
            f"fit.compile=true has no use for model={config.model.name}{recomputed}: leave it out."
        )
    return classifier.pool.sample


def _baselines(contrast: Contrast, seed: int) -> Baselines:
    """With age, sex and APOE alleles for the covariates-only baseline, whatever the model is given."""
    wanted = MetadataConfig(columns=COVARIATES, fusion={}, allow_label_derived=False)
    donors, label = contrast.cohort.donors, contrast.labels.of_donor
    try:
        covariates = read_covariates(donors, label, wanted).values
    except UserError as error:
        log.warning("no covariates-only baseline: %s", error)
        covariates = pd.DataFrame(index=donors.index)
    return Baselines(contrast.cohort, label, covariates, seed)


@contextmanager
def _writing(record: Record) -> Iterator[None]:
    """A full disk, or a folder that may not be written, is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise UserError(f"the results cannot be written to {record.folder}: {error}.") from error
