"""The pool in a browser: one page, live, and the JSON behind it (docs/dashboard.md)."""
