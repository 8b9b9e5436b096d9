"""The objects that an object holds, for tests that nothing grows with the work done."""

import gc
import sys
from collections import Counter
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

_SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


def held_by(root: object, *, but: Iterable[object] = ()) -> Counter[str]:
    """Objects that can be reached from `root` by the name of their class, and the sum of their "bytes".

    Classes, modules and functions belong to everybody, `but` to others: neither counts, nor what they hold.
    """
    seen = {id(other) for other in but}
    counts, waiting = Counter[str](), [root]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, _SHARED):
            continue
        seen.add(id(item))
        counts[type(item).__name__] += 1
        counts["bytes"] += sys.getsizeof(item)
        waiting += gc.get_referents(item)
    return counts


def growth(samples: list[Counter[str]]) -> dict[str, tuple[int, int]]:
    """What grew over samples taken at even distances: the most of it in the first half and in the second."""
    half = len(samples) // 2
    before = {name: max(s[name] for s in samples[:half]) for name in set().union(*samples)}
    after = {name: max(s[name] for s in samples[half:]) for name in before}
    return {
        name: (before[name], after[name])
        for name in sorted(before)
        # Some conversations more or less are alive by chance.
        if after[name] > 1.25 * before[name] + 50
    }
