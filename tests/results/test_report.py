"""Pages hold names and notes of files as text: none of them becomes markup."""

import re

import pandas as pd

from oligo_ad.results import report
from tests.builders import CONF

NAME = "<script>alert('\"&')</script>"


def test_what_is_put_into_a_table_or_a_page_stays_text() -> None:
    table = pd.DataFrame({NAME: [NAME, 1.5]}, index=pd.Index([NAME, "b"], name=NAME))
    page = report.environment().from_string("<p>{{ name }}</p>{{ table | table | safe }}")
    shown = page.render(name=NAME, table=table)
    assert shown.count("&lt;script&gt;") == 5
    assert "<script" not in shown
    assert set(re.findall(r"<(\w+)", shown)) <= {"p", "table", "thead", "tbody", "tr", "th", "td"}


def test_of_what_is_put_into_a_page_only_tables_are_taken_as_they_are() -> None:
    templates = [file.read_text() for file in (CONF.parent / "oligo_ad").rglob("*.j2")]
    unescaped = [use for text in templates for use in re.findall(r"\{\{(.*?)\|\s*safe\s*\}\}", text)]
    assert len(unescaped) >= 5
    assert all(re.search(r"\|\s*table(\(index=False\))?\s*$", use) for use in unescaped)
