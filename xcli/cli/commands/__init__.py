"""One file a command: its options, folded into the dataclasses of the library, and what it shows."""
