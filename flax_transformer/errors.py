"""What the person at the keyboard is told: the one exception that means they can mend this, and warnings."""

import sys


class UserError(ValueError):
    """Wrong input. The message says what was expected, what came, and what to do.

    The command line prints it as one line and exits with code 2; a library caller can catch it as a ``ValueError``.
    """


def warn(text: str) -> None:
    """A line on stderr about something that does not stop the work: what was seen, in which numbers, what to do."""
    print(f"warning: {text}", file=sys.stderr)
