"""Alarms: what is wrong or weak about a result, found in the result itself."""

from oligo_ad.results.evaluation import FEW_DONORS, MODEL, Evaluation

FAR_ABOVE = 0.25  # training donor AUROC above test: more than a few donors explain


def alarms(evaluation: Evaluation) -> list[str]:
    """One sentence for each thing that is wrong or weak, the gravest first."""
    donors = evaluation.donors[MODEL]
    mean, found = donors.mean_over_folds, []
    samples = {"nuclei": evaluation.cells[MODEL].pooled} if evaluation.cells else {}
    samples["donors"] = donors.pooled
    if evaluation.label_derived:
        found.append(
            f"Metadata columns that give the label away were used: {', '.join(evaluation.label_derived)}. "
            "The scores say nothing about expression."
        )
    found += [
        f"All {evaluation.part} {what} are called {word}: F1 and accuracy mean nothing here."
        for what, scores in samples.items()
        for word in _only_called(scores)
    ]
    what, scores = next(iter(samples.items()))
    common = max(scores["prevalence"], 1 - scores["prevalence"])
    if scores["accuracy"] <= common:
        found.append(
            f"Accuracy over {evaluation.part} {what} ({scores['accuracy']:.3f}) is not above that of always "
            f"naming the commoner class ({common:.3f})."
        )
    if (mean["auroc"] - 0.5) * (mean["balanced_accuracy"] - 0.5) < 0 and abs(mean["auroc"] - 0.5) > 0.1:
        found.append(
            f"Donor AUROC ({mean['auroc']:.3f}) and balanced accuracy ({mean['balanced_accuracy']:.3f}) "
            "contradict each other: scores rank donors one way and the threshold calls them the other."
        )
    train = evaluation.training_donors["auroc"]
    if train - mean["auroc"] > FAR_ABOVE:
        found.append(
            f"Donor AUROC is {train:.3f} on training donors and {mean['auroc']:.3f} on {evaluation.part} "
            "donors: the model remembers its donors."
        )
    if donors.auroc.low <= 0.5 <= donors.auroc.high:
        found.append("The interval of the donor AUROC includes 0.5: chance explains this result.")
    if evaluation.smallest_class < FEW_DONORS:
        found.append(
            f"The smaller class has {evaluation.smallest_class} {evaluation.part} donors in all: one donor "
            "moves every number. Use split=cv."
        )
    if evaluation.best_baseline and evaluation.gain <= 0:
        found.append(f"The baseline '{evaluation.best_baseline}' does as well or better.")
    return found


def _only_called(scores: dict[str, float]) -> list[str]:
    """The class that every sample is called, if there is one."""
    n_negative = scores["true_negative"] + scores["false_negative"]
    n_positive = scores["true_positive"] + scores["false_positive"]
    return ["1"] * (n_negative == 0) + ["0"] * (n_positive == 0)
