"""Reports of a stored result: a table in the terminal and one HTML file. They read stored runs only."""
