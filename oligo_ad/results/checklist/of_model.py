"""What a run knows of its model: input, size, training, output, and how it can be had again."""

from oligo_ad.config import Component
from oligo_ad.errors import listing
from oligo_ad.results.checklist.items import Answer, not_applicable, unknown
from oligo_ad.results.checklist.of_data import MOST, span
from oligo_ad.results.sentences import RunSummary

MEASURED = ("age", "sex", "apoe4", "apoe2", "pmi")  # covariates that nobody has to judge


def model(run: RunSummary) -> Answer:
    """Its parts, and how they are trained."""
    config, facts = run.record.config.model, run.record.facts
    parts = f"{_of(config.network)} on {_of(config.featurizer)}, pooled by {_of(config.pool)}"
    return Answer(f"{run.model}: {parts}; a sample is a {facts.sample}{_start(run)}. {training(run)}")


def _of(component: Component) -> str:
    """`MLP (hidden [512, 256], dropout 0.5)`."""
    name = str(component.get("_target_", "unknown")).rpartition(".")[2]
    return f"{name} ({options})" if (options := _options(component)) else name


def _options(component: Component) -> str:
    inner = {key: _of(value) if isinstance(value, dict) else value for key, value in component.items()}
    return ", ".join(f"{key} {value}" for key, value in inner.items() if key != "_target_")


def _start(run: RunSummary) -> str:
    facts = run.record.facts
    if facts.pretrained is None:
        return ", from random weights"
    if facts.random_weights:
        return ", from random weights in the place of pretrained ones"
    return f", from pretrained weights ({listing(map(': '.join, facts.pretrained.items()), MOST)})"


def training(run: RunSummary) -> str:
    """Loss, optimizer, schedule, batches, epochs."""
    fit = run.record.config.fit
    return (
        f"Binary cross-entropy, {run.weighting()}; {_of(fit.optimizer)}, schedule {_of(fit.schedule)}, "
        f"batches of {fit.batch_size}, at most {fit.epochs} epochs; {run.clipping()}"
    )


def _is_pretrained(run: RunSummary) -> bool:
    return run.record.facts.pretrained is not None and not run.record.facts.random_weights


def meta(run: RunSummary) -> Answer:
    """Whether another model's output is input."""
    if _is_pretrained(run):
        return Answer("its input is no prediction; its weights start from a model pretrained on other data")
    return Answer("no: no prediction of another model is its input")


def parameters(run: RunSummary) -> Answer:
    """How many are trained."""
    return Answer(f"{run.record.histories[0].parameters:,} are trained")


def features(run: RunSummary) -> Answer:
    """How many, and on which donors they were selected."""
    histories = run.record.histories
    fitted = histories[0].input.get("fitted")
    sizes = span([len(history.genes) for history in histories])
    chosen = fitted or "on whom is unknown, since this run has not recorded it"
    return Answer(
        f"{sizes} genes in a fold, {run.shared_genes:,} of them in all folds, and "
        f"{len(run.record.facts.covariates)} covariates. Fitted: {chosen}"
    )


def predictors(run: RunSummary) -> Answer:
    """What the model reads."""
    columns = listing(run.record.facts.covariates, MOST) or "none"
    return Answer(
        "expression of genes, named in folds/<k>/history.json, as: "
        f"{run.record.histories[0].input.get('values', 'unknown values')}. Covariates: {columns}"
    )


def judgement(run: RunSummary) -> Answer:
    """Whether a predictor is somebody's judgement."""
    columns = run.record.facts.covariates
    judged = [name for name in columns if name.partition("=")[0] not in MEASURED]
    if judged:
        return unknown(f"whether {listing(judged, MOST)} needed judgement, and whose")
    more = f", and {listing(columns, MOST)} are facts of donors" if columns else ""
    return Answer(f"none: expression is counted{more}")


def legitimate(run: RunSummary) -> Answer:
    """Whether a feature gives the label away."""
    if derived := run.evaluation.label_derived:
        return Answer(f"NO: {listing(derived)} give the label away, and were allowed on purpose")
    columns = listing(run.record.facts.covariates, MOST)
    guard = f"covariates ({columns}) passed the guard against columns that define the label or follow from it"
    return Answer(f"expression of nuclei{f'; {guard}' if columns else ', and no covariate'}")


def independence(run: RunSummary) -> Answer:
    """What keeps training and test donors apart, and what was fitted on whom."""
    facts = run.record.facts
    rivals = " baselines: training and validation donors;" * bool(run.evaluation.differences)
    fitted = run.record.histories[0].input.get("fitted", "unknown, since this run has not recorded it")
    before = ", pretrained on other data, whose donors are not listed" * _is_pretrained(run)
    box = f". {len(facts.locked)} donors more are in a lockbox, in no fold" if facts.locked else ""
    return Answer(
        f"no donor is in two parts of a fold. Fitted: {fitted}; weights: {run.trained_on()}{before}; "
        f"epoch: {run.epoch_kept()}; threshold: {run.threshold()};{rivals} on test donors: nothing{box}"
    )


def fitting(run: RunSummary) -> Answer:
    """Size against data, and training against test donors."""
    history, train = run.record.histories[0], run.evaluation.training_donors["auroc"]
    kept = listing([f"{one.best_epoch} of {len(one.epochs)}" for one in run.record.histories], 2 * MOST)
    return Answer(
        f"{history.parameters:,} parameters and {len(history.genes):,} genes for {history.donors['train']} "
        f"training donors in fold {history.fold}. Donor AUROC {train:.3f} on training donors, "
        f"{run.evaluation.headline:.3f} held out. Epochs kept, by fold: {kept}"
    )


def regularisation(run: RunSummary) -> Answer:
    """Everything that is set against overfitting."""
    config = run.record.config
    fit, adapt = config.fit, config.model.adapt
    used = [
        f"{name.replace('_', ' ')} {options[name]}"
        for options, name in ((fit.optimizer, "weight_decay"), (config.model.network, "dropout"))
        if options.get(name) is not None
    ]
    used += [f"weights kept in {adapt.frozen_stages} stages"] if adapt.frozen_stages else []
    used += [f"low-rank additions of rank {adapt.lora_rank}"] if adapt.lora_rank else []
    stop = f"training stops after {fit.patience} epochs without a better {fit.monitor} on validation donors"
    return Answer("; ".join([*used, f"{stop}, whose best epoch is kept"]))


def selection(run: RunSummary) -> Answer:
    """What chose the model."""
    return Answer(
        f"the epoch by {run.record.config.fit.monitor} on validation donors; one model is trained in each "
        "fold, and none is selected by its test donors"
    )


def interpretability(run: RunSummary) -> Answer:
    """Whether decisions can be followed."""
    return Answer("a black box: the run computes no explanation of its predictions")


def output(run: RunSummary) -> Answer:
    """What is predicted, and from where on it is called positive."""
    negative, positive = run.class_names
    how = run.record.config.evaluation.donor_score
    donor = "" if run.by_donor else f"; a donor's score: {how} of its nuclei"
    cuts = listing(dict.fromkeys(f"{history.threshold:.3g}" for history in run.record.histories), MOST)
    return Answer(
        f"classification: the probability of {positive} against {negative}, of a {run.record.facts.sample}"
        f"{donor}. Threshold of {positive}, by fold: {cuts}, fitted on {run.threshold()}"
    )


def prediction(run: RunSummary) -> Answer:
    """How a donor of the test part gets its score."""
    return Answer(
        "a test donor is scored by the model of its fold, saved in folds/<k>/model.safetensors with all that "
        f"prediction needs. {output(run).text}"
    )


def imbalance(run: RunSummary) -> Answer:
    """How classes of unequal size are handled."""
    return Answer(
        f"{run.weighting()}; scores that naming the commoner class cannot raise come first; donor "
        "probabilities are brought to the cohort's prevalence"
    )


def updating(run: RunSummary) -> Answer:
    """Nothing is changed after the evaluation."""
    return not_applicable("no model is updated after its evaluation")
