"""A build with everything that a report can show, its facts and its page."""

import pytest

from magpie_ray.dataset.layout import REPORT_KEY
from magpie_ray.publish.report.facts import Facts
from magpie_ray.publish.report.report import read_facts, write_report
from magpie_ray.storage.storage import Storage
from tests.support.report_builds import rich_build


@pytest.fixture(scope="package")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return rich_build(tmp_path_factory.mktemp("rich"))


@pytest.fixture(scope="package")
def facts(storage: Storage) -> Facts:
    return read_facts(storage, price=2.5)


@pytest.fixture(scope="package")
def page(storage: Storage) -> str:
    write_report(storage, price=2.5)
    return storage.read(REPORT_KEY).decode()
