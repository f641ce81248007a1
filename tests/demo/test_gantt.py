import re
from html.parser import HTMLParser

import pytest

from parrot_backend.demo.gantt import Chart, gantt_page
from parrot_backend.demo.records import Mode
from tests.demo.records import call, run


class Page(HTMLParser):
    """Collects the classes of all elements, all titles and all addresses."""

    def __init__(self, html):
        super().__init__()
        self.classes, self.titles, self.addresses = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.classes += (given.get("class") or "").split()
        self.titles.append(given.get("title") or "")
        self.addresses += [value for key, value in attrs if key in ("src", "href")]


@pytest.fixture
def html():
    calls = [call("part 1"), call("part <2>", needs=("part 1",), begin_s=0.1)]
    runs = (run(Mode.CALL_BY_CALL, 1.0, calls, 2), run(Mode.ONE_SUBMIT, 0.5, calls))
    return gantt_page([Chart("chain & more", "sub", runs, bound_s=0.45)], ["5 < 6 tokens"])


def test_every_call_of_both_runs_has_its_phases(html):
    titles = Page(html).titles
    for name in ("part 1", "part <2>"):
        for phase in ("queue", "prefill", "decode"):
            assert sum(title.startswith(f"{name}: {phase}") for title in titles) == 2


def test_the_bound_is_drawn(html):
    assert Page(html).classes.count("bound") == 1


def test_bars_lie_on_one_axis_that_ends_after_the_longest_run(html):
    # The axis is 1.09 s long: 9 % more than the longest run.
    (left,) = re.findall(r'class="bound" style="left:([\d.]+)%"', html)
    assert float(left) == pytest.approx(100 * 0.45 / 1.09, abs=0.01)
    assert 'style="left:0.000%;width:91.743%"' in html


def test_text_is_escaped(html):
    assert "chain &amp; more" in html
    assert "5 &lt; 6 tokens" in html


def test_the_page_needs_nothing_from_elsewhere(html):
    assert Page(html).addresses == []
    assert "http" not in html
    assert "@import" not in html


def test_an_empty_page_is_a_page():
    assert "<h1>" in gantt_page([], [])
