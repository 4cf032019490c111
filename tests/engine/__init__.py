"""The engine, tested against hand-computed values, brute force, enumeration and properties."""
