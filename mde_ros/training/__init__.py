"""The offline companion: one recipe per file, settings on top, the loop in plain sight."""
