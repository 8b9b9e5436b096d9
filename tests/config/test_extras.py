"""The free-form mappings: bounded, and without false secrets."""

from pathlib import Path

import pytest

from magpie_ray.config.loading import load_config
from magpie_ray.errors import ConfigError
from tests.support.configs import config


def test_aliases_that_mean_a_cycle_or_a_billion_values_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("num_rows: 1\nengine: {extra: {x: &a [*a, *a]}}\n")
    with pytest.raises(ConfigError, match=r"engine\.extra\.x: .* at most 20 levels deep"):
        load_config(file)
    laughs = "".join(f"    l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 9))
    file.write_text(f"num_rows: 1\nengine:\n  extra:\n    l0: &l0 [lol]\n{laughs}")
    with pytest.raises(ConfigError, match="with at most 10000 values"):
        load_config(file)


def test_a_word_with_token_in_it_is_no_secret() -> None:
    extra = {"max_num_batched_tokens": 8192}
    assert config(engine={"extra": extra}).recorded()["engine"]["extra"] == extra
