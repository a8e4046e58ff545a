"""Images within `.tar` and `.zip` archives, read where they lie, without unpacking them to the disk."""
