"""The guard against covariates that give the label away: by their name, and by what they do."""

import re
from collections.abc import Iterator
from math import comb

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

# ADNC is computed from Thal, Braak and CERAD; the others are read at the same examination, or
# follow from the disease. As features they give the answer away. Names are compared as lower-case words.
LABEL_DERIVED = {
    r"adnc|neuropath|nia reagan|niareagan|\bad ?(status|group|pathology)\b|pathologic": (
        "it is the label, or a coarser form of it"
    ),
    r"braak|thal|cerad|cerad ?sc": "ADNC is computed from Thal, Braak and CERAD",
    r"6e10|at8|amyloid|abeta|a beta|\btau\b|ptau|p tau|plaque|tangle|\bnft\b|positive area|gfap|neun|asyn|"
    r"synuclein|tdp|iba1": "it is a stain of the same examination",
    r"\blate\b|late nc|\bcaa\b|lewy|atheroscler|arterioloscler|infarct|hippocampal sclerosis|brain weight|"
    r"brain mass|gpath|autopsy (diagnos|finding)": "it comes from the same examination",
    r"cognit|dementia|demented|casi\b|mmse|\bcdr|moca|cogdx|dcfdx|\bmci\b|symptom|onset|global cog": (
        "it follows from the disease"
    ),
    r"pseudo ?progression|severely affected|\bcps\b": "it is computed from the pathology",
    r"diagnos|\bdx\b|disease|condition|case ?control|\bcases?\b|\bcontrols?\b|neurotypical|consensus|"
    r"alzheimer": ("it names the cases"),
}
# Of a person or a sample, not of the disease: refused only where they separate the classes completely.
HONEST = re.compile(
    r"\b(age|sex|m?sex|gender|apoe\d?|apoe genotype|pmi|post ?mortem interval|educ(ation)?|rin|race|"
    r"ethnicity|ancestry|hispanic|method|assay|library|batch|ph)\b"
)
ALMOST = 0.95  # donor AUROC, either way, from which a column alone tells the classes apart
CHANCE = 0.01  # probability by accident from which on a separation is none
DRAWS = 999


def derived_from_label(column: str) -> str | None:
    """Why a column of this name must not be a feature; None where it may be one."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column)
    name = " ".join(re.sub(r"[\W_]+", " ", words).casefold().split())
    joined = " ".join(re.sub(r"[\W_]+", " ", column).casefold().split())
    found = (
        why
        for pattern, why in LABEL_DERIVED.items()
        if re.search(pattern, name) or re.search(pattern, joined)
    )
    return next(found, None)


def gives_label_away(source: str, encoded: dict[str, pd.Series], label: pd.Series) -> str | None:
    """Why a column must not be a feature: by its name, or because it separates the classes.

    Args:
        source: its name in the file.
        encoded: [donors] as the model would be given it, NaN where unknown.
        label: [donors] 0 or 1.
    """
    if reason := derived_from_label(source):
        return reason
    return next(_by_what_it_does(source, pd.DataFrame(encoded), label), None)


def _by_what_it_does(source: str, values: pd.DataFrame, label: pd.Series) -> Iterator[str]:
    known = values.notna().all(axis=1)
    if 0 < known.sum() < len(known) and _tells_apart(known.to_numpy(float), label):
        yield "it is known in one class only"
    if known.sum() < 4 or label[known].nunique() < 2:
        return
    of_known = label[known]
    levels = of_known.groupby([values.loc[known, name] for name in values]).agg(["nunique", "size"])
    if 1 < len(levels) <= known.sum() // 4 and (levels["nunique"] == 1).all():
        yield "each of its values occurs in one class only"
    honest = HONEST.search(re.sub(r"[\W_]+", " ", source).casefold()) is not None
    repeated = levels[levels["size"] > 1]
    if not honest and (repeated["nunique"] == 1).all() and _chance_of_purity(repeated, of_known) < CHANCE:
        yield "each of its values that two donors have occurs in one class only"
    for name in values:
        if values.loc[known, name].nunique() > 2:
            area = roc_auc_score(of_known, values.loc[known, name])
            if area in (0.0, 1.0):
                yield "it separates the classes completely"
            elif not honest and _almost(area, values.loc[known, name], of_known):
                yield f"it alone tells the classes apart (donor AUROC {max(area, 1 - area):.3f})"
    if not honest and values.shape[1] > 1 and len(levels) <= known.sum() // 3:
        group = values[known].groupby([*values]).ngroup().to_numpy()
        area = _area_of_levels(group, of_known.to_numpy())
        if area >= ALMOST and _chance_of_area(group, of_known.to_numpy(), area) < CHANCE:
            yield f"it alone tells the classes apart (donor AUROC {area:.3f})"


def _tells_apart(known: np.ndarray, label: pd.Series) -> bool:
    """Whether which donors are known tells the classes apart: completely, or in one class only."""
    by_class = [known[label.to_numpy() == value] for value in (0, 1)]
    if all(len(set(part)) == 1 for part in by_class):
        return True
    if abs(by_class[0].mean() - by_class[1].mean()) >= 2 * ALMOST - 1:
        return True
    for own, other in (by_class, by_class[::-1]):
        if not other.any() and own.any():
            n = int(own.sum())
            return comb(len(own), n) / comb(len(known), n) < CHANCE
    return False


def _chance_of_purity(levels: pd.DataFrame, label: pd.Series) -> float:
    """The probability that labels drawn at random leave each of these levels in one class."""
    total, positive = len(label), int(label.sum())
    sizes = levels["size"].tolist()
    if not sizes:
        return 1.0
    rest = total - sum(sizes)
    ways = np.zeros(positive + 1, dtype=object)
    ways[0] = 1
    for size in sizes:
        ways[size:] = ways[size:] + ways[: len(ways) - size] if size <= positive else ways[size:]
    pure = sum(int(ways[n]) * comb(rest, positive - n) for n in range(positive + 1))
    return pure / comb(total, positive)


def _almost(area: float, values: pd.Series, label: pd.Series) -> bool:
    if max(area, 1 - area) < ALMOST:
        return False
    return bool(mannwhitneyu(values[label == 1], values[label == 0], method="asymptotic").pvalue < CHANCE)


def _area_of_levels(group: np.ndarray, label: np.ndarray) -> float:
    """The donor AUROC where each level is scored by its share of positive donors."""
    share = np.bincount(group, label) / np.bincount(group)
    return float(roc_auc_score(label, share[group]))


def _chance_of_area(group: np.ndarray, label: np.ndarray, area: float) -> float:
    """How often labels drawn at random reach as much."""
    draw = np.random.default_rng(0)
    reached = sum(_area_of_levels(group, draw.permutation(label)) >= area for _ in range(DRAWS))
    return (1 + reached) / (1 + DRAWS)
