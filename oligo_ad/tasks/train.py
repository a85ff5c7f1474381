"""`task=train`, a whole run: open the contrast; train, predict and record each fold; report."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shutil import rmtree

import numpy as np
import pandas as pd
from accelerate import Accelerator

from oligo_ad.baselines.build import make_baselines
from oligo_ad.baselines.predictors import ENSEMBLE, NETWORK, Baselines
from oligo_ad.config import Config, located
from oligo_ad.data.cache import fingerprint, load_matched, source
from oligo_ad.data.cohort import Cohort
from oligo_ad.data.confounders import read_confounders, read_subgroups
from oligo_ad.data.contrast import Contrast, open_contrast
from oligo_ad.data.lockbox import open_box
from oligo_ad.data.overlap import people_of, person
from oligo_ad.data.split import Fold, write_split
from oligo_ad.errors import UserError
from oligo_ad.facts import PARTS, DonorFacts, Epoch, FoldHistory, ReaderFacts, RunFacts, Source
from oligo_ad.faults import writing
from oligo_ad.inputs.loader import Sample
from oligo_ad.models.build import make_classifier, make_featurizer
from oligo_ad.models.pretrained import Pretrained, read_pretrained
from oligo_ad.record import BASELINES, FOLDS, LOCKBOX, MATCHED, PERMUTATIONS, SPLIT, Record
from oligo_ad.results.calibration import fold_line
from oligo_ad.results.environment import environment
from oligo_ad.results.evaluation import TEST, TRAIN, VALIDATION
from oligo_ad.results.metrics import best_threshold
from oligo_ad.results.report import conclude
from oligo_ad.results.tracking import track
from oligo_ad.scores import probability_of
from oligo_ad.tasks.permute import check_permutations, refit_permuted
from oligo_ad.training.checkpoint import save_bundle
from oligo_ad.training.fold_model import FoldModel, prepare_model
from oligo_ad.training.machine import make_accelerator, seed_everything, start_tracker
from oligo_ad.training.members import Trained
from oligo_ad.training.optimizer import make_optimizer

log = logging.getLogger(__name__)

SLOW_ATTENTION = (
    "attention does not run on the flash kernel: it is slower and takes more memory. The flash kernel needs "
    "attention_dropout=0 on a CPU, and precision=bf16 or fp16 on a GPU"
)


@dataclass(frozen=True)
class Run:
    """What all folds share.

    `sample`: what the model predicts. `baselines`: None where none is asked for. `subgroups`: the level of
    each donor, by column. `matched`: the nuclei with counts thinned to a common depth, where test donors are
    predicted from these too. `of_box`: baselines that know the donors of the lockbox too, where it is opened.
    `notes`: remarks for the user. `started`: by the clock of `time.perf_counter`.
    """

    config: Config
    record: Record
    accelerator: Accelerator
    contrast: Contrast
    pretrained: Pretrained | None
    sample: Sample
    baselines: Baselines | None
    subgroups: dict[str, pd.Series]
    matched: Cohort | None
    of_box: Baselines | None
    notes: tuple[str, ...]
    started: float

    @property
    def writes(self) -> bool:
        """Whether this process writes: the first of all does."""
        return bool(self.accelerator.is_main_process)


def train(config: Config, folder: Path) -> float | None:
    """Train a model in every fold and score its test donors.

    Returns:
        Donor AUROC, mean over folds; None in all processes but the first.
    """
    with opened(config, folder) as run:
        if config.permutations:
            check_permutations(run.record, config, run.contrast)
        begin(run)
        for fold in run.contrast.folds:
            train_fold(run, fold)
        if config.permutations:
            refit_permuted(run.record, config, run.contrast, config.permutations)
        return finish(run)


@contextmanager
def opened(config: Config, folder: Path) -> Iterator[Run]:
    """Set up what all folds share. Mistakes that show without the data are reported before they are read."""
    started = time.perf_counter()
    pretrained = read_pretrained(config.model)
    sample = _check_components(config, pretrained)
    accelerator, folder = make_accelerator(config, folder)
    with accelerator.main_process_first():
        contrast = open_contrast(config.data, config.split, config.metadata, config.cache.path)
    _check_box(config, contrast)
    for note in contrast.notes:
        log.warning(note)
    start_tracker(accelerator, config, folder)
    wanted = config.evaluation.baselines
    baselines = make_baselines(contrast, config.evaluation, config.seed) if wanted else None
    subgroups = read_subgroups(contrast.cohort, contrast.labels.of_donor, config.evaluation.subgroups)
    with accelerator.main_process_first():
        matched, remark = _matched(config, contrast)
    opens = wanted and config.split.open_lockbox
    yield Run(
        config=config,
        record=Record(folder),
        accelerator=accelerator,
        contrast=contrast,
        pretrained=pretrained,
        sample=sample,
        baselines=baselines,
        subgroups=subgroups,
        matched=matched,
        of_box=make_baselines(contrast.with_box(), config.evaluation, config.seed) if opens else None,
        notes=contrast.notes + remark,
        started=started,
    )
    accelerator.end_training()


def _matched(config: Config, contrast: Contrast) -> tuple[Cohort | None, tuple[str, ...]]:
    """The nuclei with counts thinned to a common depth, and what the user is told of them; None where that is
    not asked for, or cannot be."""
    asked = config.evaluation.depth_matched and not config.data.match_depth and config.task.name == "train"
    if not asked:
        return None, ()
    if contrast.prepared.expression.content != "counts":
        remark = "test donors are not scored at a common depth too: the file has no raw counts"
        log.info(remark)
        return None, (remark,)
    matched = load_matched(contrast.prepared, config.data, config.cache.path)
    remark = f"test donors are scored at a common depth too: {matched.notes[-1]}"
    log.info(remark)
    return matched.of(contrast.labels.donors), (remark,)


def _check_box(config: Config, contrast: Contrast) -> None:
    """Refuse to open a lockbox that is not there, or in a search.

    Raises:
        UserError: naming what to change.
    """
    if not config.split.open_lockbox:
        return
    if config.task.name != "train":
        raise UserError(
            "split.open_lockbox=true has no place in a search, whose trials would look at the locked donors "
            "again and again. Open it by one run, when the settings are chosen."
        )
    if not len(contrast.box):
        raise UserError(
            "split.open_lockbox=true needs donors that were set aside: add split.lockbox=SHARE, such as "
            "split.lockbox=0.2."
        )


def begin(run: Run) -> None:
    """Record configuration, split and facts, before anything is trained."""
    if not run.writes:
        return
    config, record, contrast = run.config, run.record, run.contrast
    if config.split.open_lockbox:
        simulated = contrast.about["file"] if contrast.cohort.simulated else ""
        by = (record.folder, record.typed, config.cache.path)
        open_box(contrast.box, contrast.labels.column, *by, simulated)
    # Folds left here by a run that was killed would pass for folds of this one.
    for folder in (FOLDS, PERMUTATIONS):
        rmtree(record.folder / folder, ignore_errors=True)
    with writing(record.folder):
        record.write_config(asdict(located(config)))
        write_split(contrast.folds, contrast.labels.of_donor, config.split, record.folder / SPLIT)
        record.write_facts(_facts(run))


def train_fold(
    run: Run, fold: Fold, is_trial: bool = False, watch: Callable[[Epoch], None] = lambda epoch: None
) -> FoldHistory:
    """Fit everything on the training donors of one fold, predict its donors, and record both.

    Nothing is learned from test donors; in a trial of a search they are not even predicted.
    """
    started = time.perf_counter()
    seed_everything(run.config.seed, fold.number)
    model = prepare_model(run.config, run.contrast, fold, run.pretrained, run.accelerator)
    kernels = model.kernels()
    if fold is run.contrast.folds[0] and not all("flash" in kernel for kernel in kernels):
        log.warning("%s (attention runs on: %s)", SLOW_ATTENTION, ", ".join(kernels))
    fitted = model.fit(f"fold_{fold.number}/" if len(run.contrast.folds) > 1 else "", watch)
    parts = (part for part in PARTS if not (is_trial and part == TEST))
    logits = {part: model.logits(fitted, part) for part in parts}
    _check_finite(logits, fold, run.config)
    run.accelerator.free_memory()
    more = {} if is_trial else _of_test_donors(run, model, fitted, logits)
    threshold = _threshold(run.config, model, logits[VALIDATION])
    history = _history(model, fitted, kernels, threshold, time.perf_counter() - started)
    if run.writes:
        with writing(run.record.folder), run.record.fold(fold.number) as writer:
            if not is_trial:
                calibration = _calibration(run, model, fitted, logits[VALIDATION])
                save_bundle(model.bundle(fitted, threshold, calibration), writer.model)
            writer.write(history, model.predictions(logits), more)
    return history


def _of_test_donors(
    run: Run, model: FoldModel, fitted: Trained, logits: dict[str, np.ndarray]
) -> dict[str, pd.DataFrame]:
    """What else is predicted of test donors: tables by the names of their files."""
    found, fold, contrast = {}, model.fold, run.contrast
    if run.matched:
        own = run.matched.of(fold.test)
        found[MATCHED] = model.predict_others(fitted, own, contrast.covariates.values)
    if run.config.split.open_lockbox:
        covariates = contrast.covariates_of_box(run.config.metadata.columns)
        own = contrast.prepared.of(contrast.box.index)
        found[LOCKBOX] = model.predict_others(fitted, own, covariates)
    if run.baselines and run.writes:
        found[BASELINES] = _scored(run.baselines, model, fitted, logits)
    if run.of_box and run.writes:
        scored = run.of_box.score(replace(fold, test=tuple(contrast.box.index)))
        found[LOCKBOX] = found[LOCKBOX].merge(scored.drop(columns="fold"), on="donor")
    return found


def _scored(
    baselines: Baselines, model: FoldModel, fitted: Trained, logits: dict[str, np.ndarray]
) -> pd.DataFrame:
    """Probabilities for the test donors: of the baselines, of the model together with one of them, and of its
    network alone, where that is combined with other views."""
    own = model.donor_scores({part: logits[part] for part in (VALIDATION, TEST)})
    table = baselines.score(model.fold).assign(**{ENSEMBLE: baselines.ensemble(model.fold, own)})
    if not fitted.readers:
        return table
    network = model.donor_scores({TEST: model.network_logits(fitted, TEST)})
    return table.assign(**{NETWORK: network[table["donor"]].to_numpy()})


def finish(run: Run, objective: dict[str, object] | None = None) -> float | None:
    """Write the results that follow from the record; returns the headline, in the first process only."""
    headline = None
    if run.writes:
        with writing(run.record.folder):
            summary, pictures = conclude(run.record, objective)
            track(summary, pictures, run.accelerator)
            headline = summary.evaluation.headline
    run.accelerator.wait_for_everyone()
    return headline


def _check_finite(logits: dict[str, np.ndarray], fold: Fold, config: Config) -> None:
    """Refuse predictions that are no numbers: scores of the others would hide them."""
    for part, logit in logits.items():
        if n := int((~np.isfinite(logit)).sum()):
            raise UserError(
                f"fold {fold.number}: {n:,} of {len(logit):,} predictions for {part} donors are not finite. "
                "These samples lie far outside what the model was trained on, or its numbers overflow in "
                f"precision={config.precision.name}. Look at the data by task=inspect, use precision=fp32, "
                "or lower fit.optimizer.lr."
            )


def _sources(config: Config) -> dict[str, Source]:
    """What the run was made of, by a hash of its content."""
    data = source(config.data, config.cache.path)
    # The name of a simulated file is a hash of all that its content depends on.
    found = {"data": Source(str(data.absolute()), data.stem if config.data.simulation else fingerprint(data))}
    if config.model.checkpoint:
        checkpoint = Path(config.model.checkpoint).expanduser()
        found["checkpoint"] = Source(str(checkpoint.absolute()), fingerprint(checkpoint))
    return found


def _threshold(config: Config, model: FoldModel, logit: np.ndarray) -> float:
    """The probability from which a sample is called positive: given, or the best for validation donors."""
    given = config.evaluation.threshold
    if given == "validation":
        return best_threshold(model.label[model.samples[VALIDATION]], probability_of(logit))
    return float(given)


def _calibration(
    run: Run, model: FoldModel, fitted: Trained, validation: np.ndarray
) -> dict[str, float] | None:
    """What makes donor scores probabilities, by the logits of validation donors; None if not asked for."""
    how, label = run.config.evaluation.calibration, run.contrast.labels.of_donor
    if how == "none":
        return None
    score, samples = model.donor_scores({VALIDATION: validation}), model.label[model.samples[TRAIN]]
    donors = label[list(model.fold.train)].to_numpy()
    scored = score.to_numpy(), label[score.index].to_numpy()
    return fold_line(how, fitted.pos_weight, samples, donors, scored)._asdict()


def _history(
    model: FoldModel, fitted: Trained, kernels: list[str], threshold: float, seconds: float
) -> FoldHistory:
    return FoldHistory(
        fold=model.fold.number,
        seed=model.config.seed,
        donors={part: len(donors) for part, donors in model.fold.parts.items()},
        pos_weight=fitted.pos_weight,
        best_epoch=fitted.best_epoch,
        threshold=threshold,
        genes=model.featurizer.gene_names,
        input=model.featurizer.facts(),
        parameters=sum(p.numel() for one in model.members for p in one.parameters() if p.requires_grad),
        attention=kernels,
        readers=_readers(fitted),
        seconds=seconds,
        epochs=list(fitted.history),
    )


def _readers(fitted: Trained) -> dict[str, ReaderFacts]:
    if not (readers := fitted.readers):
        return {}
    found = readers.combination
    of_each = zip(readers.names, found.auroc.tolist(), found.weight.tolist(), strict=True)
    return {name: ReaderFacts(auroc, weight) for name, auroc, weight in of_each}


def _facts(run: Run) -> RunFacts:
    contrast, pretrained, accelerator = run.contrast, run.pretrained, run.accelerator
    found = read_confounders(contrast.cohort, contrast.labels.column)
    return RunFacts(
        cohort=contrast.about,
        simulated=contrast.cohort.simulated,
        classes=contrast.labels.names,
        sample=run.sample,
        donors=_donors(contrast.prepared, contrast.labels.of_donor),
        locked=_donors(contrast.prepared, contrast.box),
        box_is_open=run.config.split.open_lockbox,
        flow=contrast.flow.to_dict("records"),
        excluded=contrast.excluded.to_dict("records"),
        notes=list(run.notes),
        covariates=list(contrast.covariates.values.columns),
        label_derived=list(contrast.covariates.label_derived),
        pretrained=pretrained.origin if pretrained else None,
        random_weights=pretrained is not None and pretrained.weights is None,
        environment=environment(accelerator.device, accelerator.num_processes),
        words=run.record.typed,
        sources=_sources(run.config),
        confounders={str(n): c.to_dict() for n, c in found.items()},
        subgroups={name: levels.to_dict() for name, levels in run.subgroups.items()},
        seconds=time.perf_counter() - run.started,
    )


def _donors(cohort: Cohort, label: pd.Series) -> dict[str, DonorFacts]:
    """Facts of the donors that have these labels."""
    own = cohort.table_of(label.index)
    people = people_of(own)
    return {
        donor: DonorFacts(label=int(label[donor]), nuclei=int(nuclei), person=person(people, donor))
        for donor, nuclei in own["nuclei"].items()
    }


def _check_components(config: Config, pretrained: Pretrained | None) -> Sample:
    """Make every component once, as small as possible: a wrong option is reported before data are read.

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
