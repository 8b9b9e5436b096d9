"""The config: what the user asks for, checked as a whole before anything else starts.

Read schema (the whole config and what follows from it), then sections, sampling and acceptance (its parts),
fields, extras, engine_extra, system_prompts and output_path (the values), source (YAML and overrides), ready
(the configs of the package, and which file a name stands for), problems (messages).

Invariants: a Config is frozen and consistent; all problems are reported at once, with key, value and remedy;
no message shows a secret; a config's `identity` never changes for builds that exist.
"""

from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.loading import load_config, load_job, parse_config
from magpie_ray.config.schema import Config
from magpie_ray.config.score import ScoreConfig

__all__ = ["AnswerConfig", "Config", "ScoreConfig", "load_config", "load_job", "parse_config"]
