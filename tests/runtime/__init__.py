"""The public API on a real Ray. A package, so that one pool serves all of its tests and ends with the last."""
