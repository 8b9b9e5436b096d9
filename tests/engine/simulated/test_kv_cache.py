"""Blocks of the simulated KV cache."""

from magpie_ray.engine.simulated.kv_cache import BlockCache, block_hashes


def test_a_block_is_known_by_its_tokens_and_all_before_them() -> None:
    ids = list(range(70))
    hashes = block_hashes(ids)
    assert len(hashes) == 4
    assert block_hashes(ids[:40]) == hashes[:2]
    assert block_hashes(ids, hashes[:2]) == hashes
    assert set(block_hashes([99, *ids[1:]])).isdisjoint(hashes)


def test_a_block_in_use_is_not_evicted() -> None:
    cache = BlockCache(4)
    assert cache.take(2)
    cache.give_back([1, 2], shared=0, blocks=2)
    assert cache.use_and_take([1], 2)
    assert cache.find([1, 2]) == 2
    assert cache.take(1)
    assert cache.find([1, 2]) == 1
    assert not cache.take(1)


def test_a_block_that_is_filled_can_be_used_by_others_before_it_is_given_back() -> None:
    cache = BlockCache(4)
    assert cache.take(3)
    assert cache.share([1, 2]) == 2
    assert cache.find([1, 2, 3]) == 2
    assert cache.use_and_take([1, 2], 1)
    # Another one that has filled the same keeps a block of its own.
    assert cache.share([1]) == 0
    cache.give_back([1, 2, 3], shared=2, blocks=3)
    assert cache.available == 1
    cache.give_back([1, 2], shared=2, blocks=3)
    assert cache.available == 4
    assert cache.find([1, 2, 3]) == 3
