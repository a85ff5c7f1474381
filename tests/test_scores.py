"""Scores of donors, from logits and nuclei."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from oligo_ad.scores import aurocs


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 99)), min_size=2, max_size=30))
def test_areas_of_several_predictors_are_scikit_learns_with_and_without_ties(
    rows: list[tuple[int, int, int]],
) -> None:
    label, *scores = np.array([(0, 1, 1), (1, 0, 0), *rows]).T
    wanted = [roc_auc_score(label, own) for own in scores]
    assert aurocs(label, np.stack(scores)) == pytest.approx(wanted, abs=1e-12)
