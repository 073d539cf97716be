"""The one exception that means "the user can fix this"."""


class UserError(Exception):
    """Bad input or configuration: one line naming the thing, its value, what was expected, the fix.

    Doors print the text on stderr without a traceback and exit with status 2.
    """
