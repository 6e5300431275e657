"""Commands of `gestalt`, a module per topic; every import of a room happens inside its command."""
