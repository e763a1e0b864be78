"""What `stages.report` shows: records of runs, what they say of each other, figures, and the page."""
