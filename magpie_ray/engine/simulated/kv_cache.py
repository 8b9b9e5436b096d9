"""The KV cache of a simulated engine: blocks, prefix caching, and the order of eviction.

As in vLLM: a block holds 16 tokens; a full block is identified by its tokens and all tokens before them;
unused blocks keep their content until they are evicted, the least recently used first, and of one sequence
its last block first. Invariant: blocks in use, blocks kept and empty blocks add up to the capacity.
"""

from array import array
from collections import OrderedDict
from collections.abc import Sequence

BLOCK_TOKENS = 16
_BLOCK_BYTES = BLOCK_TOKENS * array("q").itemsize


class BlockCache:
    """A cache of `capacity` blocks. A block is private to a sequence until it shares it, or gives it back."""

    def __init__(self, capacity: int) -> None:
        self._empty = capacity
        self._kept: OrderedDict[int, None] = OrderedDict()  # by hash, the next to be evicted first
        self._users: dict[int, int] = {}  # hash -> sequences that use the block

    @property
    def available(self) -> int:
        """Blocks that can be taken, kept ones included."""
        return self._empty + len(self._kept)

    def take(self, blocks: int) -> bool:
        """Make blocks private and evict kept ones for them. False, without effect, if there are too few."""
        if blocks > self.available:
            return False
        evicted = max(0, blocks - self._empty)
        for _ in range(evicted):
            self._kept.popitem(last=False)
        self._empty += evicted - blocks
        return True

    def find(self, hashes: Sequence[int]) -> int:
        """The number of a sequence's blocks in the cache, counted from its first one to the first gap."""
        found = 0
        for block in hashes:
            if block not in self._users and block not in self._kept:
                break
            found += 1
        return found

    def use_and_take(self, hashes: Sequence[int], blocks: int) -> bool:
        """One more sequence uses these cached blocks and takes `blocks` others. False if too few are left."""
        if blocks > self.available - sum(block in self._kept for block in hashes):
            return False
        for block in hashes:
            self._kept.pop(block, None)
            self._users[block] = self._users.get(block, 0) + 1
        return self.take(blocks)

    def share(self, hashes: Sequence[int]) -> int:
        """A sequence lets others use these private blocks, next to each other, that it fills.

        Returns how many: none from the first one on that the cache has of another sequence.
        """
        shared = 0
        for block in hashes:
            if block in self._users or block in self._kept:
                break
            self._users[block] = 1
            shared += 1
        return shared

    def touch(self, hashes: Sequence[int]) -> None:
        """Count those of these blocks that are kept as used now."""
        for block in reversed(hashes):
            if block in self._kept:
                self._kept.move_to_end(block)

    def give_back(self, hashes: Sequence[int], *, shared: int, blocks: int) -> None:
        """A sequence of `blocks` blocks ends. It found, or let others use, the first `shared` of them.

        hashes: of its full blocks. Those that no other sequence uses are kept, the last to be evicted first.
        """
        own = hashes[shared:]
        self._empty += blocks - shared - len(own)
        for block in reversed(own):
            if block in self._users or block in self._kept:
                self._empty += 1  # another sequence has computed the same
            else:
                self._kept[block] = None
        for block in reversed(hashes[:shared]):
            self._users[block] -= 1
            if not self._users[block]:
                del self._users[block]
                self._kept[block] = None


def block_hashes(token_ids: Sequence[int], known: Sequence[int] = ()) -> list[int]:
    """One hash for each full block, of its tokens and all before them. known: hashes of the first blocks."""
    hashes = list(known)
    parent = hashes[-1] if hashes else 0
    begin = len(hashes) * BLOCK_TOKENS
    content = array("q", token_ids[begin:]).tobytes()  # takes a third of the time of hashing the integers
    for start in range(0, len(content) - _BLOCK_BYTES + 1, _BLOCK_BYTES):
        parent = hash((parent, content[start : start + _BLOCK_BYTES]))
        hashes.append(parent)
    return hashes
