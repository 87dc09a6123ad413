"""How much memory the device has free."""

import os

import jax


def free_bytes() -> float:
    """Bytes free on the first device: as it reports, or the machine's available memory where it does not (CPU)."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            available = next(line for line in lines if line.startswith("MemAvailable:"))
        return 1024.0 * int(available.split()[1])
    except (OSError, StopIteration):
        # No such file outside Linux: what the machine has in all.
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
