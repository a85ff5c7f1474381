"""Reasons to distrust a result, found in the result itself."""

from oligo_ad.results.evaluation import FEW_DONORS, MODEL, Outcome

FAR_ABOVE = 0.25  # training donor AUROC above test: more than a few donors explain


def alarms(outcome: Outcome) -> list[str]:
    """One sentence for each thing that is wrong or weak, the gravest first."""
    donors, cells = outcome.donors[MODEL], outcome.cells[MODEL]
    mean, found = donors.mean_over_folds, []
    if outcome.label_derived:
        found.append(
            f"Metadata columns that give the label away were used: {', '.join(outcome.label_derived)}. "
            "The scores say nothing about expression."
        )
    one_sided = (cells.pooled, "nuclei"), (donors.pooled, "donors")
    for scores, what in one_sided:
        for names, word in (
            (("true_negative", "false_negative"), "1"),
            (("true_positive", "false_positive"), "0"),
        ):
            if sum(scores[name] for name in names) == 0:
                found.append(f"All test {what} are called {word}: F1 and accuracy mean nothing here.")
    common = max(cells.pooled["prevalence"], 1 - cells.pooled["prevalence"])
    if cells.pooled["accuracy"] <= common:
        found.append(
            f"Accuracy over test nuclei ({cells.pooled['accuracy']:.3f}) is not above that of always "
            f"naming the commoner class ({common:.3f})."
        )
    if (mean["auroc"] - 0.5) * (mean["balanced_accuracy"] - 0.5) < 0 and abs(mean["auroc"] - 0.5) > 0.1:
        found.append(
            f"Donor AUROC ({mean['auroc']:.3f}) and balanced accuracy ({mean['balanced_accuracy']:.3f}) "
            "contradict each other: scores rank donors one way and the threshold calls them the other."
        )
    train = outcome.training_donors["auroc"]
    if train - mean["auroc"] > FAR_ABOVE:
        found.append(
            f"Donor AUROC is {train:.3f} on training donors and {mean['auroc']:.3f} on test donors: the "
            "model remembers its donors."
        )
    if donors.auroc.low <= 0.5 <= donors.auroc.high:
        found.append("The interval of the donor AUROC includes 0.5: chance explains this result.")
    if outcome.smallest_test_class < FEW_DONORS:
        found.append(
            f"The smaller class has {outcome.smallest_test_class} test donors in all: one donor moves "
            "every number. Use split=cv."
        )
    if outcome.best_baseline and outcome.gain <= 0:
        found.append(f"The baseline '{outcome.best_baseline}' does as well or better.")
    return found
