"""Reports of a benchmark run: the data (`results`), a terminal table, plots, Markdown and HTML."""
