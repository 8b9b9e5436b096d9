"""engine.extra is compared with what the installed vLLM declares, before anything starts."""

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from typing_extensions import is_typeddict

from magpie_ray.errors import ConfigError
from magpie_ray.planning.plan import make_plan
from magpie_ray.preflight.engine_arguments import check_batch, check_engine_extra, installed_vllm
from magpie_ray.preflight.vllm_source import Declared, type_of
from tests.support.configs import config, overridden

SOURCE = """
from vllm.config.cache import CacheDType, Gone
from vllm.config.elsewhere import Elsewhere
from vllm.config import Backend, Kernel, Level, Moe, Overrides, Settings
from torch import dtype
class EngineArgs:
    enforce_eager: bool = ModelConfig.enforce_eager
    block_size: int | None = None
    swap_space: float = 4
    download_dir: "str | None" = None
    ignore_patterns: str | list[str] = "x"
    offload: Optional[dict[str, int]] = None
    cache_dtype: CacheDType = CacheConfig.cache_dtype
    gone: Gone = None
    elsewhere: Elsewhere | None = None
    mode: Literal["warn", "error"] = "warn"
    odd: Literal[OTHER] = OTHER
    compilation_config: CompilationConfig = None
    settings: Settings | None = None
    backend: Backend | None = None
    level: Level = Level.O1
    overrides: Overrides = field(default_factory=dict)
    torch_dtype: dtype = None
    speculative_config: dict[str, Any] | None = None
    moe: Moe = Kernel.moe
    moe_of_field: Moe = get_field(Kernel, "moe")
    plain: Moe = Kernel.plain
    def method(self): ...
"""

SETTINGS = """
from enum import Enum, IntEnum
from typing import Any, ClassVar
from vllm.config.cache import CacheDType
if TYPE_CHECKING:
    from transformers import Pretrained
else:
    Pretrained = Any
Overrides = dict[str, Any] | Callable[[Pretrained], Pretrained]
class Backend(Enum, metaclass=Meta):
    \"\"\"Kinds of attention.\"\"\"
    FLASH_ATTN = "a.path"
    TRITON_ATTN = "another.path"
Moe = Literal["auto", "deep_gemm"]
@config
class Kernel:
    moe: Moe = "auto"
    plain: Moe = "auto"
    @field_validator("moe", mode="before")
    @classmethod
    def normalized(cls, value): return value.lower().replace("-", "_")
class Level(IntEnum):
    O0 = 0
    O1 = 1
@config(config=ConfigDict(arbitrary_types_allowed=True))
class Inner:
    size: int = Field(default=1, ge=1)
    again: "Settings" = None
@config
class Settings:
    cache: CacheDType = "auto"
    inner: Inner = field(default_factory=Inner)
    mode: Level = None
    pretrained: Pretrained = None
    known: ClassVar[int] = 3
    later: int = field(init=False)
    @field_validator("mode", mode="before")
    @classmethod
    def from_text(cls, value): return Level[value]
    @field_validator("cache", mode="after")
    @classmethod
    def checked(cls, value): return value
"""
VALIDATED = "@config\nclass C:\n    a: int\n    @{}\n    def f(c, v): ..."
OTHERS = {
    "all of it changed before": VALIDATED.format("model_validator(mode='before')"),
    "all fields changed before": VALIDATED.format("field_validator('*', mode='before')"),
    "its own __init__": "@dataclass\nclass C:\n    a: int\n    def __init__(self, **k): ...",
    "a base": "@dataclass\nclass C(Base):\n    a: int",
    "no dataclass": "class C:\n    a: int",
    "defined twice": "@config\nclass C:\n    a: int\n@config\nclass C:\n    b: int",
    "values computed": "class C(Enum):\n    A = auto()",
    "itself imported": "from vllm.config.other import C",
}


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vLLM of which only the source is there."""
    folder = tmp_path_factory.mktemp("site") / "vllm"
    (folder / "engine").mkdir(parents=True)
    (folder / "config").mkdir()
    (folder / "engine" / "arg_utils.py").write_text(SOURCE)
    (folder / "config" / "cache.py").write_text('CacheDType = Literal["auto", "fp8"]\n')
    (folder / "config" / "settings.py").write_text(SETTINGS)
    (folder / "config" / "speculative.py").write_text("@config\nclass SpeculativeConfig:\n    method: str\n")
    names = "from vllm.config.settings import Backend, Kernel, Level, Moe, Overrides, Settings\n"
    (folder / "config" / "__init__.py").write_text(names)
    return folder


def refusal(vllm: Path | None, extra: Mapping[str, object]) -> str:
    """The error about these arguments; "" where they are taken."""
    try:
        check_engine_extra(extra, find=lambda: vllm)
    except ConfigError as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("enforce_eager", value) for value in (True, "true", None)),
        *(("block_size", value) for value in (16, "16", None)),
        *(("swap_space", value) for value in (4, 0.5)),
        *(("download_dir", value) for value in ("x", None)),
        *(("ignore_patterns", value) for value in ("x", ["x"])),
        ("offload", {"a": 1}),
        ("cache_dtype", "fp8"),
        *(("gone", value) for value in (1, "x", {})),
        ("elsewhere", [1]),
        ("mode", "error"),
        ("odd", 3),
        ("compilation_config", {"level": 3}),
        *(("settings", value) for value in (None, {}, {"cache": "fp8"}, {"inner": {"size": "2"}})),
        *(("settings", value) for value in ({"mode": "O1"}, {"pretrained": 7}, {"inner": {"again": {}}})),
        *(("backend", value) for value in ("FLASH_ATTN", "flash_attn", "a.path")),
        *(("level", value) for value in (0, 1)),
        ("overrides", {"rope_scaling": {"factor": 2.0}}),
        ("torch_dtype", "half"),
        ("speculative_config", {"method": "ngram"}),
        *((name, value) for name in ("moe", "moe_of_field") for value in ("auto", "Deep-GEMM")),
        ("plain", "deep_gemm"),
    ],
)
def test_a_value_that_fits_or_of_which_nothing_is_known_is_taken(
    vllm: Path, name: str, value: object
) -> None:
    assert refusal(vllm, {name: value}) == ""


@pytest.mark.parametrize(
    ("name", "value", "declared"),
    [
        ("enforce_eager", "sometimes", "must be bool"),
        ("enforce_eager", 7, "must be bool"),
        ("block_size", "many", "must be int | None"),
        ("block_size", 1.5, "must be int | None"),
        ("swap_space", [4], "must be float"),
        ("download_dir", 3, "must be str | None"),
        ("ignore_patterns", {"a": 1}, "must be str | list[str]"),
        ("offload", {"a": "b"}, "must be Optional[dict[str, int]]"),
        ("cache_dtype", "fp9", "must be one of auto, fp8,"),
        ("mode", "loud", "must be one of warn, error,"),
        ("settings", 3, "must be Settings | None"),
        ("settings", {"cache": "fp9"}, "must be Settings | None (Input should be 'auto' or 'fp8')"),
        ("settings", {"inner": {"size": "x"}}, "(Input should be a valid integer"),
        ("backend", "FLASH_ATN", "must be Backend | None (one of FLASH_ATTN, TRITON_ATTN)"),
        ("level", 7, "must be one of 0, 1,"),
        ("level", "O1", "must be one of 0, 1,"),
        ("overrides", 3, "must be Overrides"),
        ("moe", "deep", "must be one of auto, deep_gemm,"),
        ("plain", "Deep-GEMM", "must be one of auto, deep_gemm,"),
        ("speculative_config", 7, "must be dict[str, Any] | None"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_is_declared(
    vllm: Path, name: str, value: object, declared: str
) -> None:
    message = refusal(vllm, {name: value})
    assert message.startswith(f"engine.extra.{name}: got ")
    assert declared in message


def test_an_unknown_name_is_refused_and_the_nearest_one_is_named(vllm: Path) -> None:
    assert "engine.extra.enforce_eagr: " in refusal(vllm, {"enforce_eagr": True})
    assert ": enforce_eager is one" in refusal(vllm, {"enforce_eagr": True})
    assert " is one" not in refusal(vllm, {"zzz": 1})
    assert "method" in refusal(vllm, {"method": 1})


@pytest.mark.parametrize(
    ("extra", "where", "name"),
    [
        ({"settings": {"cach": "fp8"}}, "settings", "cach"),
        ({"settings": {"inner": {"siz": 1}}}, "settings.inner", "siz"),
        ({"settings": {"known": 1}}, "settings", "known"),
        ({"settings": {"later": 1}}, "settings", "later"),
        ({"speculative_config": {"metod": "ngram"}}, "speculative_config", "metod"),
    ],
)
def test_an_unknown_name_inside_of_a_value_is_refused(
    vllm: Path, extra: dict[str, object], where: str, name: str
) -> None:
    assert refusal(vllm, extra) == f"engine.extra.{where}: the installed vLLM has no {name!r} there"


@pytest.mark.parametrize("source", OTHERS.values(), ids=OTHERS)
def test_a_class_that_does_not_say_plainly_what_it_takes_takes_anything(tmp_path: Path, source: str) -> None:
    folder = tmp_path / "vllm"
    for name in ("engine", "config"):
        (folder / name).mkdir(parents=True)
    (folder / "config" / "other.py").write_text(source)
    arguments = "from vllm.config.other import C\nclass EngineArgs:\n    c: C = None\n"
    (folder / "engine" / "arg_utils.py").write_text(arguments)
    for value in (3, "x", {"zzz": 1}, [1]):
        assert refusal(folder, {"c": value}) == ""


@pytest.mark.skipif(installed_vllm() is None, reason="vLLM is not installed")
def test_what_the_installed_vllm_gives_its_own_fields_fits_what_is_read() -> None:
    """Constants that stand as defaults in the source of the classes that engine.extra may fill."""
    folder = installed_vllm()
    assert folder
    checked = 0
    for path in (folder / "config").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            mapping = type_of(Declared(ast.Name(node.name), path)) if isinstance(node, ast.ClassDef) else None
            for field in node.body if isinstance(node, ast.ClassDef) and is_typeddict(mapping) else ():
                match field:
                    case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=default)) if (
                        name in mapping.__annotations__
                    ):
                        TypeAdapter(mapping).validate_python({name: default})
                        checked += 1
    assert checked > 100


def test_all_problems_are_told_at_once_and_no_secret(vllm: Path) -> None:
    message = refusal(vllm, {"api_key": "hunter2", "block_size": {"hf_token": "hunter2"}})
    assert len(message.splitlines()) == 2
    assert "hunter2" not in message


@pytest.mark.parametrize("source", ["", "x = (", "class EngineArgs: pass"])
def test_nothing_is_refused_where_nothing_is_known(tmp_path: Path, source: str) -> None:
    assert refusal(None, {"zzz": 1}) == ""
    assert refusal(tmp_path, {"zzz": 1}) == ""
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "arg_utils.py").write_text(source)
    assert refusal(tmp_path, {"zzz": 1}) == ""


@pytest.mark.skipif(installed_vllm() is None, reason="vLLM is not installed")
def test_the_plan_refuses_what_the_installed_vllm_does_not_take(tmp_path: Path) -> None:
    def planned(extra: dict[str, object]) -> None:
        make_plan(config(engine={"extra": extra}, output={"path": str(tmp_path / "out")}))

    planned({"enforce_eager": True, "block_size": 32, "kv_cache_dtype": "fp8", "max_num_batched_tokens": 64})
    with pytest.raises(ConfigError, match=r"engine\.extra\.enforce_eagr.*: enforce_eager is one"):
        planned({"enforce_eagr": True})
    with pytest.raises(ConfigError, match=r"engine\.extra\.kv_cache_dtype: got 'fp9', must be one of auto, "):
        planned({"kv_cache_dtype": "fp9"})
    with pytest.raises(ConfigError, match=r"compilation_config: the installed vLLM has no 'nope' there"):
        planned({"compilation_config": {"nope": 3}})
    with pytest.raises(ConfigError, match=r"attention_backend: got 'FLASH_ATN', must be .*FLASH_ATTN"):
        planned({"attention_backend": "FLASH_ATN"})
    with pytest.raises(ConfigError, match=r"engine\.extra\.max_num_batched_tokens: got 'many'"):
        planned({"max_num_batched_tokens": "many"})


BATCH = "engine.extra.max_num_batched_tokens"
WHOLE = "engine.extra.enable_chunked_prefill=false"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            [WHOLE],
            r"got 512, must be at least 2,048, the longest sequence, .* is false: raise it.*set",
        ),
        ([WHOLE, "engine.max_model_len=1536"], r"at least 1,536, .*or lower engine\.max_model_len$"),
        (["engine.device=cpu", "sampling.reproducible=true"], r"2,048, .*seeds on a CPU"),
        (["engine.max_num_seqs=600"], r"at least engine\.max_num_seqs, which is 600: raise it, or lower"),
    ],
)
def test_a_batch_that_vllm_would_refuse_is_refused_with_the_key_and_the_remedy(
    settings: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^engine\.extra\.max_num_batched_tokens: .*{message}"):
        check_batch(overridden(f"{BATCH}=512", *settings), room=room_of(settings))


def room_of(settings: list[str]) -> int:
    return 1536 if "engine.max_model_len=1536" in settings else 2048


@pytest.mark.parametrize(
    ("settings", "room"),
    [
        ([], 2048),
        ([f"{BATCH}=512"], 2048),
        ([f"{BATCH}=512", WHOLE], 512),
        ([f"{BATCH}=512", WHOLE], None),
        ([f"{BATCH}=512", "engine.max_num_seqs=512"], 2048),
        ([f"{BATCH}=512", "engine.device=cpu", "sampling.reproducible=false"], 2048),
        (
            [
                f"{BATCH}=512",
                "engine.device=cpu",
                "sampling.reproducible=true",
                "engine.extra.enable_chunked_prefill=true",
            ],
            2048,
        ),
    ],
)
def test_a_batch_that_vllm_takes_or_of_which_nothing_is_known_passes(
    settings: list[str], room: int | None
) -> None:
    check_batch(overridden(*settings), room=room)
