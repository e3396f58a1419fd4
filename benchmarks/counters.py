"""What the kernel counts of a process."""

from pathlib import Path


def memory(counter: str, pid: int | str = "self") -> int:
    """Bytes of a counter of /proc/PID/status, as RssAnon or VmHWM; 0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(counter)), 0)
