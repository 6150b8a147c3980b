"""Reads what other people start agents with (scripts, units, images, workflows) and holds it against the lock."""
