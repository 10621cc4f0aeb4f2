"""The processes of this machine, selected by their command lines."""

import subprocess
from pathlib import Path


def processes_that_mention(text: str | Path) -> dict[int, str]:
    """Return the command lines of the running processes that contain this text, by process id."""
    if Path("/proc/self/cmdline").exists():
        lines = {int(process.name): _command_line(process) for process in Path("/proc").glob("[0-9]*")}
    else:
        listed = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True)
        pairs = (line.split(maxsplit=1) for line in listed.stdout.splitlines())
        lines = {int(pid): "".join(line) for pid, *line in pairs}
    return {pid: line for pid, line in lines.items() if str(text) in line}


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it has ended
        return ""
