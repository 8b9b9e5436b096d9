"""GPUs by name, with the figures of the vendor's data sheets. This project measured none of them."""

import difflib
from dataclasses import dataclass

from magpie_ray.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """memory: bytes, 10**9 to a GB as sold; drivers show a little more or less. bandwidth: bytes/s.

    arithmetic: dense bf16 FLOP/s with fp32 accumulation.
    """

    name: str
    memory: float
    bandwidth: float
    arithmetic: float

    @property
    def max_num_seqs(self) -> int:
        """vLLM's default for offline use: large GPUs other than the A100 get 1024 (EngineArgs, vLLM 0.32)."""
        return 1024 if self.memory >= 75e9 and not self.name.startswith("A100") else 256


# GB, GB/s, TFLOP/s
_DATA_SHEETS = {
    "A10G": (24, 600, 70),
    "A100-40GB": (40, 1555, 312),
    "A100-80GB": (80, 2039, 312),
    "B200": (180, 7700, 2250),
    "H100-80GB": (80, 3350, 989),
    "H100-NVL": (94, 3900, 835),
    "H100-PCIe": (80, 2000, 756),
    "H200": (141, 4800, 989),
    "L4": (24, 300, 121),
    "L40S": (48, 864, 362),
    "RTX4090": (24, 1008, 165),
    "RTX6000-Ada": (48, 960, 364),
}
GPUS = {
    name: Gpu(name=name, memory=memory * 1e9, bandwidth=bandwidth * 1e9, arithmetic=arithmetic * 1e12)
    for name, (memory, bandwidth, arithmetic) in _DATA_SHEETS.items()
}


def find_gpu(name: str) -> Gpu:
    """The GPU of that name; case and punctuation don't matter. ConfigError lists the known names."""
    by_letters = {_letters(known): gpu for known, gpu in GPUS.items()}
    if gpu := by_letters.get(_letters(name)):
        return gpu
    variants = [gpu.name for letters, gpu in by_letters.items() if letters.startswith(_letters(name) or "?")]
    if variants:
        raise ConfigError(f"--gpu: got {name!r}, must be one of {', '.join(variants)}")
    close = difflib.get_close_matches(_letters(name), by_letters, n=1)
    hint = f"did you mean {by_letters[close[0]].name}? Known" if close else "known"
    raise ConfigError(f"--gpu: got {name!r}; {hint} are {', '.join(GPUS)}")


def _letters(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
