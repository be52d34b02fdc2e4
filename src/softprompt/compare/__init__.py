"""Methods are compared on a user's rows, with the uncertainty of every result."""
