"""The items of TRIPOD+AI (Collins et al. 2024): 27, with their parts 52."""

from oligo_ad.results.checklist.items import Item, Standard

SITES = "how sites or brain banks differ"

TRIPOD_AI = Standard(
    "TRIPOD+AI",
    "Collins et al. 2024, BMJ 385:e078378, doi:10.1136/bmj-2023-078378",
    {
        "title": (Item("1", "title that names model, population, outcome", add="the title"),),
        "abstract": (Item("2", "structured abstract", add="the abstract, by TRIPOD+AI for abstracts"),),
        "introduction": (
            Item("3a", "context and rationale", add="the setting, and models that exist"),
            Item("3b", "target population, intended use and users", add="for whom and what it is meant"),
            Item("3c", "known inequalities between groups", add="what is known of them"),
            Item("4", "objectives", add="what the study is for: development, evaluation or both"),
        ),
        "methods: data": (
            Item("5a", "sources of data, and why these", "source", "why these data; how representative"),
            Item("5b", "dates of the data", add="first and last date of collection"),
            Item("6a", "setting, number and places of centres", add="brain banks and their places"),
            Item("6b", "eligibility", "exclusions", "who was eligible in the original study"),
            Item("6c", "treatments", add="treatments that donors received, if they matter"),
            Item("7", "preparation and quality checks", "preprocessing"),
            Item("8a", "outcome, and its assessment", "outcome", "how and when it was assessed"),
            Item("8b", "qualification of assessors", add="who graded the brains"),
            Item("8c", "blinding of assessors", add="whether graders knew predictors"),
            Item(
                "9a", "choice of predictors before modelling", "features", "why expression, and these genes"
            ),
            Item("9b", "definition and measurement of predictors", "predictors", "how they were measured"),
            Item("9c", "predictors that need judgement", "judgement"),
            Item("10", "sample size, and whether it suffices", "sample_size"),
            Item("11", "handling of missing data", "handling"),
        ),
        "methods: analysis": (
            Item("12a", "use and division of the data", "split"),
            Item("12b", "form and scaling of predictors", "preprocessing"),
            Item("12c", "model, its building, internal validation", "building", "why this type of model"),
            Item("12d", "differences between clusters", "clusters", SITES),
            Item("12e", "scores and pictures of performance", "measures"),
            Item("12f", "updating of the model", "updating"),
            Item("12g", "how predictions are computed", "prediction"),
            Item("13", "class imbalance", "imbalance"),
            Item("14", "fairness", "subgroups"),
            Item("15", "output, and thresholds", "output"),
            Item("16", "development against evaluation data", "evaluation_data"),
            Item("17", "ethical approval", add="committee and consent"),
        ),
        "open science": (
            Item("18a", "funding", add="who paid, and their part in the study"),
            Item("18b", "conflicts of interest", add="those of all authors"),
            Item("18c", "protocol", add="where it is, or that there is none"),
            Item("18d", "registration", add="register and number, or that there is none"),
            Item("18e", "sharing of data", add="where the data can be had"),
            Item("18f", "sharing of code", "program", "where the code can be had"),
        ),
        "patient and public involvement": (
            Item("19", "part of patients and public", add="what they did, or that they did nothing"),
        ),
        "results": (
            Item("20a", "flow of participants", "flow"),
            Item("20b", "characteristics of participants", "characteristics"),
            Item("20c", "predictors in development and evaluation data", "shift"),
            Item("21", "participants and outcomes in each analysis", "split"),
            Item("22", "the whole model, for others to use", "model_files", "where it can be had"),
            Item("23a", "performance with intervals, in subgroups too", "result"),
            Item("23b", "differences in performance between clusters", "clusters", SITES),
            Item("24", "results of updating", "updating"),
        ),
        "discussion": (
            Item(
                "25", "interpretation, with fairness and earlier work", "verdict", "earlier studies; fairness"
            ),
            Item("26", "limitations", "limits", "those that no number shows"),
            Item("27a", "poor or missing input in use", "handling", "how input is to be checked in use"),
            Item("27b", "expertise and handling that use needs", add="who would have to do what"),
            Item("27c", "next steps", add="what has to follow"),
        ),
    },
)
