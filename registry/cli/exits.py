"""The exit codes of the commands that call a registry; README.md has the table. Usage errors are 2, by click."""

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_UNAVAILABLE = 4
EXIT_INTERRUPTED = 130  # as a shell says of what Ctrl-C has ended
EXIT_PIPE_CLOSED = 141  # as a shell says of what SIGPIPE has ended
