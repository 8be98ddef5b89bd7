"""What operators can ask, a file a theme; chalicelib/operate.py says which action is whose. See docs/operate.md."""
