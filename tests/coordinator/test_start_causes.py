"""Which causes of failed starts may pass, and how they are told."""

import pytest

from magpie_ray.coordinator.start_causes import StartCauses, may_pass


@pytest.mark.parametrize(
    "cause",
    [
        "EngineError: vLLM could not start\n  HfHubHTTPError: 429 Client Error: Too Many Requests for url: https://x",
        "503 Server Error: Service Unavailable for url",
        "OSError: [Errno 116] Stale file handle: '/nfs/models/x'",
        "requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='x', port=443): Read timed out.",
        "urllib3 ... Connection refused",
    ],
)
def test_a_hub_a_network_or_a_mount_may_recover(cause: str) -> None:
    assert may_pass(cause)


@pytest.mark.parametrize(
    "cause",
    [
        "torch.OutOfMemoryError: tried to allocate 40.00 GiB",
        "CUDA out of memory\n  Connection reset by peer",
        "EngineError: vLLM could not start: bfloat16 is not supported on this GPU",
        "its engine was not up after 1800 s (cluster.start_timeout_seconds)",
        "n1 has no folder /models/x",
        "OSError: [Errno 28] No space left on device",
        "OSError: [Errno 24] Too many open files",
        "BlockingIOError: [Errno 11] Resource temporarily unavailable",
        "RuntimeError: can't start new thread\n  Connection reset by peer",
    ],
)
def test_a_wrong_setting_or_a_full_memory_does_not_pass(cause: str) -> None:
    assert not may_pass(cause)


def test_one_cause_is_told_whole_with_its_hosts() -> None:
    causes = StartCauses()
    for host in ("n1", "n2", "n1"):
        causes.note("no room: 40 GiB of 24\n  its log", host)
    assert str(causes) == "The last cause, 3 times on n1, n2: no room: 40 GiB of 24\n  its log\n"


def test_several_causes_are_told_by_their_number_and_numbers_in_them_do_not_count() -> None:
    causes = StartCauses()
    for number in range(30):
        causes.note(f"n{number} has no folder /models/x{number}", f"n{number}")
    causes.note("no CUDA", "n7")
    first, second = str(causes).splitlines()[1:]
    assert first.startswith("- 30 times on n0, n1, n2, n3, n4 and 25 others: ")
    assert second == "- once on n7: no CUDA."


def test_a_start_that_was_never_placed_has_no_host() -> None:
    causes = StartCauses()
    causes.note("no such runtime environment.", "")
    assert str(causes) == "The last cause, once: no such runtime environment. "
