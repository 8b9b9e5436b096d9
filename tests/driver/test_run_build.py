"""What `generate` refuses, or leaves alone, before anything starts."""

import socket
from pathlib import Path

import pytest
import yaml

import magpie_ray
from magpie_ray.config.loading import load_config
from magpie_ray.driver.run_build import generate
from magpie_ray.errors import ConfigError, PreflightError
from magpie_ray.storage.storage import Storage
from tests.support.builds import complete_build


@pytest.fixture
def dead_address() -> str:
    """host:port where nothing listens: bound, never listened on, and free again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def test_a_cluster_address_that_does_not_answer_is_refused_at_once(
    tmp_path: Path, dead_address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="magpie_ray")
    keys = ["num_rows=1", f"output.path={tmp_path / 'build'}", f"cluster.address={dead_address}"]
    with pytest.raises(PreflightError, match=f"no Ray cluster at {dead_address}.*ray start --head"):
        generate(load_config(None, keys))
    assert not (tmp_path / "build/_magpie/build.json").exists()
    assert (
        "reading the tokenizer of builtin:tiny-chat" in caplog.messages
    )  # transformers takes seconds to import


def test_a_build_that_is_left_alone_says_how_many_rows_it_has(tmp_path: Path) -> None:
    complete_build(Storage(str(tmp_path / "build")), 10)
    keys = ["num_rows=null", f"inputs.path={tmp_path}/people.csv", f"output.path={tmp_path / 'build'}"]
    result = generate(load_config(None, keys), if_exists="skip")
    assert (result.left_alone, result.num_rows) == ("it is complete", 10)


def test_a_pass_takes_a_file_a_mapping_or_a_config_and_names_the_function_for_another_config(
    tmp_path: Path,
) -> None:
    output = str(tmp_path / "build")
    complete_build(Storage(output), 10)
    asked = {
        "source": {"path": str(tmp_path / "source")},
        "model": {"name": "builtin:tiny-chat"},
        "output": {"path": output},
    }
    file = tmp_path / "answers.yaml"
    file.write_text(yaml.safe_dump(asked))
    config = magpie_ray.load_job(file, ["n=1"])
    assert isinstance(config, magpie_ray.AnswerConfig)
    for given in (str(file), file, asked, config):
        result = magpie_ray.answer(given, if_exists="skip")
        assert (result.path, result.left_alone) == (output, "it is complete")
        assert repr(result) == f"BuildResult(10 rows in {output}, left alone: it is complete)"
    with pytest.raises(ConfigError, match=r"this is a config of `answer`: pass it to magpie_ray\.answer"):
        generate(config)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="this is a config of `generate`"):
        magpie_ray.score(load_config("demo"))  # type: ignore[arg-type]
