"""docs/report.md, from committed results only: ``make report``."""
