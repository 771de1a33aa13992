"""Where stages lie, and how they are moved, locked and checked."""
