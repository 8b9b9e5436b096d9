"""The quality of tiny_chat, measured on real vLLM: the figures of its model card.

pytest tests/end_to_end/test_tiny_chat_quality.py -s
"""

import pytest

from tests.end_to_end.tiny_chat_quality import FLOORS, measure_quality

# vLLM and torch warn of their own deprecations while they are imported and started.
pytestmark = [pytest.mark.end_to_end, pytest.mark.again, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("figure", FLOORS)
def test_no_figure_is_below_its_floor(figure: str) -> None:
    share = measure_quality()[figure]
    print(f"\n{figure}: {share}")
    assert share.value >= FLOORS[figure]
