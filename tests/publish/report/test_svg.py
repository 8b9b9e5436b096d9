"""Drawings: only what draws comes through, and a chart that fails is named."""

import pytest

from magpie_ray.errors import ReportError
from magpie_ray.publish.report.chart import Chart
from magpie_ray.publish.report.svg import clean, draw


def test_what_is_no_drawing_is_left_out_of_one() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1" width="1" height="1" onload="a()">'
        '<script>a()</script><a href="x"><rect/></a><style>x</style><image href="x"/><foreignObject/>'
        '<path id="p" onclick="a()" style="x" d="M0" aria-label="5 &lt; 6"/>'
        '<g clip-path="url(#p)">t</g></svg>'
    )
    cleaned = clean(svg, "name", "what <it> shows")
    assert cleaned == (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1" role="img" '
        'aria-label="what &lt;it&gt; shows"><path id="name-p" d="M0"><title>5 &lt; 6</title></path>'
        '<g clip-path="url(#name-p)">t</g></svg>'
    )


def test_a_renderer_that_fails_says_which_chart() -> None:
    spec = {"data": {"values": [{}]}, "transform": [{"filter": "nonsense"}], "mark": "bar"}
    with pytest.raises(ReportError, match=r"could not be drawn .*: odd: .*nonsense"):
        draw({"odd": Chart(title="", spec=spec)})
