"""The one exception that means: the person at the keyboard can mend this."""


class UserError(ValueError):
    """Wrong input. The message says what was expected, what came, and what to do.

    The command line prints it as one line and exits with code 2; a library caller can catch it as a ``ValueError``.
    """
