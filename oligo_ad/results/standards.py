"""The items of three reporting standards, in our own words, each with the fact of a run that answers it.

DOME (Walsh et al. 2021, Nat. Methods 18:1122), REFORMS (Kapoor et al. 2024, Sci. Adv. 10:eadk3452) and
TRIPOD+AI (Collins et al. 2024, BMJ 385:e078378). An item without a fact is for people: a run cannot know it.
"""

from typing import NamedTuple


class Item(NamedTuple):
    """`number` and `section` as in the standard; `label`: what it asks for; `fact`: the name of its answer in
    `checklist.py`, empty where only people know."""

    number: str
    section: str
    label: str
    fact: str = ""


def _items(section: str, *rows: tuple[str, ...]) -> list[Item]:
    return [Item(row[0], section, *row[1:]) for row in rows]


DOME = [
    *_items(
        "data",
        ("provenance", "where the data come from; how many samples of each class", "source"),
        ("splits", "sizes and classes of the parts", "split"),
        ("redundancy", "how the parts are kept independent", "independence"),
        ("availability", "where data and parts can be had", "files"),
    ),
    *_items(
        "optimization",
        ("algorithm", "kind of model", "model"),
        ("meta", "whether it reads other models' predictions", "meta"),
        ("encoding", "how data become input", "preprocessing"),
        ("parameters", "how many parameters, and how that was chosen", "parameters"),
        ("features", "how many features, and on which data they were selected", "features"),
        ("fitting", "signs of over- and underfitting", "fitting"),
        ("regularization", "what keeps the model from memorising", "regularisation"),
        ("config", "where configuration and hyperparameters can be had", "configuration"),
    ),
    *_items(
        "model",
        ("interpretability", "whether decisions can be followed", "interpretability"),
        ("output", "what is predicted", "output"),
        ("duration", "how long it takes", "time"),
        ("availability", "where program and model can be had", "code"),
    ),
    *_items(
        "evaluation",
        ("method", "how it was evaluated", "evaluation"),
        ("measure", "which scores", "scores"),
        ("comparison", "which simpler predictors it was compared with", "comparison"),
        ("confidence", "intervals and tests", "uncertainty"),
        ("availability", "where predictions and scores can be had", "files"),
    ),
]

REFORMS = [
    *_items(
        "study goals",
        ("1a", "the population that is spoken of"),
        ("1b", "why that population"),
        ("1c", "why machine learning"),
    ),
    *_items(
        "computational reproducibility",
        ("2a", "the data set", "source"),
        ("2b", "the code", "code"),
        ("2c", "the computing environment", "environment"),
        ("2d", "documentation of the code", "code"),
        ("2e", "a script that gives the same results", "reproduction"),
    ),
    *_items(
        "data quality",
        ("3a", "sources of the data, and who assessed the outcome", "source"),
        ("3b", "from whom donors were sampled"),
        ("3c", "why the data suit the question"),
        ("3d", "the outcome, and its definition", "outcome"),
        ("3e", "numbers of samples by class", "numbers"),
        ("3f", "missing values", "missing"),
        ("3g", "whether the sample represents the population"),
    ),
    *_items(
        "data preprocessing",
        ("4a", "what was left out, and why", "exclusions"),
        ("4b", "what was done with impossible or damaged entries", "notes"),
        ("4c", "every transformation from raw data to input", "preprocessing"),
    ),
    *_items(
        "modelling",
        ("5a", "the models, their input and output", "model"),
        ("5b", "why these models"),
        ("5c", "how they were evaluated", "evaluation"),
        ("5d", "how the model was selected", "selection"),
        ("5e", "hyperparameters, and how they were chosen", "configuration"),
        ("5f", "baselines", "comparison"),
    ),
    *_items(
        "data leakage",
        ("6a", "what separates training from test", "independence"),
        ("6b", "dependent or equal samples", "duplicates"),
        ("6c", "whether each feature is legitimate", "legitimate"),
    ),
    *_items(
        "metrics and uncertainty",
        ("7a", "the scores, and why these", "scores"),
        ("7b", "uncertainty", "uncertainty"),
        ("7c", "tests", "test"),
    ),
    *_items(
        "generalisability and limitations",
        ("8a", "evidence of external validity", "external"),
        ("8b", "where the result is not expected to hold", "limits"),
    ),
]

TRIPOD_AI = [
    *_items("title", ("1", "a title that names study, population and outcome")),
    *_items("abstract", ("2", "a structured abstract")),
    *_items(
        "introduction",
        ("3a", "context and rationale"),
        ("3b", "target population and intended use"),
        ("3c", "known inequalities between groups"),
        ("4", "objectives"),
    ),
    *_items(
        "methods: data",
        ("5a", "sources of the data for training and for evaluation", "source"),
        ("5b", "dates of collection"),
        ("6a", "setting and places"),
        ("6b", "who was eligible", "exclusions"),
        ("6c", "treatments received"),
        ("7", "preparation and checks of the data", "preprocessing"),
        ("8a", "the outcome", "outcome"),
        ("8b", "who assessed it, and how consistently"),
        ("8c", "whether assessors were blind to predictors"),
        ("9a", "how predictors were chosen", "features"),
        ("9b", "what the predictors are", "predictors"),
        ("9c", "predictors that need judgement", "judgement"),
        ("10", "sample size, and whether it suffices", "power"),
        ("11", "missing values", "missing"),
    ),
    *_items(
        "methods: analysis",
        ("12a", "how data were used and divided", "split"),
        ("12b", "how predictors enter the model", "preprocessing"),
        ("12c", "kind of model, building and internal validation", "model"),
        ("12d", "differences between clusters", "confounders"),
        ("12e", "scores and pictures of performance", "scores"),
        ("12f", "updating of the model", "updating"),
        ("12g", "how predictions were computed", "prediction"),
        ("13", "class imbalance", "imbalance"),
        ("14", "fairness", "subgroups"),
        ("15", "output of the model", "output"),
        ("16", "differences between training and evaluation data", "external"),
        ("17", "ethical approval"),
    ),
    *_items(
        "open science",
        ("18a", "funding"),
        ("18b", "conflicts of interest"),
        ("18c", "protocol"),
        ("18d", "registration"),
        ("18e", "where the data can be had"),
        ("18f", "where the code can be had", "code"),
    ),
    *_items("patient and public involvement", ("19", "involvement of patients and public")),
    *_items(
        "results",
        ("20a", "flow of participants", "flow"),
        ("20b", "characteristics of participants", "numbers"),
        ("20c", "comparison with the evaluation data", "external"),
        ("21", "numbers and outcomes in each analysis", "split"),
        ("22", "the model in full, so that others can use it", "files"),
        ("23a", "performance with intervals, in subgroups too", "result"),
        ("23b", "performance in clusters", "influence"),
        ("24", "results of updating", "updating"),
    ),
    *_items(
        "discussion",
        ("25", "interpretation", "verdict"),
        ("26", "limitations", "limits"),
        ("27a", "how poor or missing input is handled", "missing"),
        ("27b", "who is needed to use it"),
        ("27c", "next steps"),
    ),
]

STANDARDS = {"DOME": DOME, "REFORMS": REFORMS, "TRIPOD+AI": TRIPOD_AI}
