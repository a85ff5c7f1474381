"""The fields of the DOME registry (Walsh et al. 2021), named and nested as in its JSON."""

from oligo_ad.results.checklist.items import Item, Standard

PUBLISHED = "where it is published, and under which licence"

DOME = Standard(
    "DOME",
    "Walsh et al. 2021, Nature Methods 18:1122, doi:10.1038/s41592-021-01205-4",
    {
        "dataset": (
            Item(
                "provenance", "source of the data, their size, earlier use", "source", "who used them before"
            ),
            Item("splits", "the parts, their sizes and classes", "split"),
            Item(
                "redundancy",
                "whether the parts are independent, and what makes them so",
                "independence",
                "how the data compare with sets that were published earlier",
            ),
            Item("availability", "where data and split can be had", "split_file", PUBLISHED),
        ),
        "optimization": (
            Item(
                "algorithm",
                "class of algorithm; whether it is new",
                "model",
                "why it and no better known one",
            ),
            Item("meta", "whether predictions of other models are its input", "meta"),
            Item("encoding", "how the data become numbers", "preprocessing"),
            Item(
                "parameters", "number of parameters, and its choice", "parameters", "how the size was chosen"
            ),
            Item("features", "number of features, and where they were selected", "features"),
            Item("fitting", "signs of over- and underfitting", "fitting"),
            Item("regularization", "what is done against overfitting", "regularisation"),
            Item("config", "where settings and hyperparameters can be had", "settings", PUBLISHED),
        ),
        "model": (
            Item("interpretability", "black box, or open to the eye", "interpretability"),
            Item("output", "what is predicted", "output"),
            Item("duration", "time it takes", "time"),
            Item("availability", "where program and model can be had", "program", PUBLISHED),
        ),
        "evaluation": (
            Item("method", "how it was evaluated", "evaluation"),
            Item("measure", "which scores are reported", "measures"),
            Item("comparison", "comparison with baselines and other methods", "comparison"),
            Item("confidence", "intervals, and tests of superiority", "uncertainty"),
            Item("availability", "where raw results can be had", "result_files", PUBLISHED),
        ),
    },
)
