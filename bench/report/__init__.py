"""``make report`` writes docs/report.md from committed results only."""
