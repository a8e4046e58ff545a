"""The peers' scripts, written as their documentation suggests; each runs as a process of its own."""
