"""The items of REFORMS (Kapoor et al. 2024)."""

from oligo_ad.results.checklist.items import Item, Standard

REFORMS = Standard(
    "REFORMS",
    "Kapoor et al. 2024, Science Advances 10:eadk3452, doi:10.1126/sciadv.adk3452",
    {
        "study goals": (
            Item("1a", "population of the claim", add="of which donors, brains and nuclei the claim speaks"),
            Item("1b", "motive for this population", add="why that population"),
            Item("1c", "motive for machine learning", add="why a model is needed for the question"),
        ),
        "computational reproducibility": (
            Item("2a", "data set, to be identified", "source", "a link or DOI of the file"),
            Item("2b", "code, to be identified", "program", "a link or DOI of this version of the code"),
            Item("2c", "computing infrastructure", "environment"),
            Item("2d", "instructions", "program", "a link to the README that was followed"),
            Item("2e", "script that repeats every result", "reproduction", "the commands of other results"),
        ),
        "data quality": (
            Item(
                "3a",
                "sources and time of the data; who annotated the outcome",
                "source",
                "when and by whom brains were collected, sequenced and graded",
            ),
            Item("3b", "sampling frame", add="from which brains the donors were drawn"),
            Item("3c", "fitness of the data for the task", add="why these data suit the question"),
            Item("3d", "outcome: definition, distribution", "outcome", "how pathologists arrive at it"),
            Item("3e", "sample size, outcome frequencies", "numbers"),
            Item("3f", "share of missing data, by class", "missing"),
            Item("3g", "likeness of the sample to the population", add="why the sample stands for 1a"),
        ),
        "data preprocessing": (
            Item("4a", "samples left out, and why", "exclusions", "why these rules"),
            Item("4b", "impossible or corrupt samples", "corrupt"),
            Item("4c", "every step from raw data to input", "preprocessing"),
        ),
        "modelling": (
            Item("5a", "models in detail", "model"),
            Item("5b", "reasons for these types of model", add="why these models"),
            Item("5c", "method of evaluation, with the split", "evaluation"),
            Item("5d", "selection of the model", "selection", "which other models were tried"),
            Item("5e", "tuning of hyperparameters", "settings", "how they were chosen before this run"),
            Item("5f", "fitness of the baselines", "comparison", "why these baselines are the right ones"),
        ),
        "data leakage": (
            Item("6a", "fits see training data only", "independence"),
            Item("6b", "dependent or equal samples", "duplicates"),
            Item("6c", "legitimacy of each feature", "legitimate"),
        ),
        "metrics and uncertainty": (
            Item("7a", "scores, and why these", "measures"),
            Item("7b", "uncertainty, and how it was computed", "uncertainty"),
            Item("7c", "tests, and what they assume", "test"),
        ),
        "generalisability and limitations": (
            Item("8a", "evidence of external validity", "external"),
            Item("8b", "where it is not expected to hold", "limits", "contexts beyond this cohort"),
        ),
    },
)
