"""What tiny_chat is worth, measured on real vLLM: the figures of its model card.

pytest tests/end_to_end/test_tiny_chat_quality.py -s
"""

import pytest

from tests.end_to_end.tiny_chat_quality import BUNDLED, FLOORS, quality_of

# vLLM and torch warn of their own deprecations while they are imported and started.
pytestmark = [pytest.mark.end_to_end, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("figure", [name for name in FLOORS if "reasoning" not in name])
def test_no_figure_is_below_its_floor(figure: str) -> None:
    share = quality_of(BUNDLED)[figure]
    print(f"\n{figure}: {share}")
    assert share.value >= FLOORS[figure]
