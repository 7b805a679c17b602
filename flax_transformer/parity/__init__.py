"""The only code that knows both frameworks: copy weights, run both, compare, localize, report."""
