"""The exit codes of the commands that call a registry; README.md has the table. Usage errors are 2, by click."""

FAILED = 1
USAGE = 2
NOT_FOUND = 3
UNAVAILABLE = 4
INTERRUPTED = 130  # as a shell says of what Ctrl-C has ended
PIPE_CLOSED = 141  # as a shell says of what SIGPIPE has ended
