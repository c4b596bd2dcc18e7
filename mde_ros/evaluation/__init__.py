"""How good, how robust and how fast: pipeline x data set → results.json, tables and reports."""
