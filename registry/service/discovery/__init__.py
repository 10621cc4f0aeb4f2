"""Discovery: find agents and capabilities, from the cache of this replica."""
