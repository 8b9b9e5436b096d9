"""The report of a build: one HTML page of figures, charts and conversations.

Read report (wires the others), facts (the figures), charts_work and charts_rows (over chart), svg and
vega_program (drawing), tables and page (text and HTML, with page.html, page.css and page.js). Invariants: a
page needs nothing but itself, and no text of a build is markup in it.
"""

from magpie_ray.publish.report.report import write_report

__all__ = ["write_report"]
