"""What a pooling model gives for a text, as vLLM works it out from the model's files."""

from typing import Any

from magpie_ray.errors import ModelError
from magpie_ray.model import side_files
from magpie_ray.model.resolve import Model

# What the library sentence-transformers calls its list of modules, which run in order.
_MODULES, _CONFIG = "modules.json", "config.json"
_DENSE = (
    "sentence_transformers.models.Dense",
    "sentence_transformers.base.modules.dense.Dense",
    "pylate.models.Dense.Dense",
)
_CLASSIFIER = "ForSequenceClassification"
_UNREADABLE = (ModelError, OSError, LookupError, TypeError, ValueError, AttributeError, ImportError)


def architecture_of(model: Model) -> str:
    """The architecture in the model's config.json; "" where it names none."""
    names = _read(model, _CONFIG).get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def classifies(model: Model) -> bool:
    """Whether the model gives logits of labels, as a reward model does."""
    return architecture_of(model).endswith(_CLASSIFIER)


def label_count(model: Model, *, trust_remote_code: bool = False) -> int | None:
    """Labels of a model that classifies; None where its files do not say it."""
    try:
        return int(_config(model, trust_remote_code).num_labels)
    except _UNREADABLE:
        return None


def vector_size(model: Model, *, trust_remote_code: bool = False) -> int | None:
    """Numbers in a vector of an embedding model; None where its files do not say it."""
    try:
        modules: Any = _read(model, _MODULES)
        dense = [module["path"] for module in modules if module.get("type") in _DENSE]
        if dense:
            size = _read(model, f"{dense[-1]}/{_CONFIG}")["out_features"]
        else:
            config = _config(model, trust_remote_code)
            size = getattr(config, "embedding_size", None) or config.get_text_config().hidden_size
    except _UNREADABLE:
        return None
    return size if type(size) is int and size > 0 else None


def _read(model: Model, name: str) -> Any:
    """The value in a JSON file of the model; {} where it lacks the file or the file is broken."""
    try:
        path = side_files.finder(model.location, model.revision)(name)
        return side_files.parse(path) if path else {}
    except ModelError:
        return {}


def _config(model: Model, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig  # slow to import

    return AutoConfig.from_pretrained(
        model.location, revision=model.revision, trust_remote_code=trust_remote_code
    )
