"""The report of a build."""

from magpie_ray.publish.report.report import write_report

__all__ = ["write_report"]
