"""A subject and what is found about it: opened, analysed into a file, put into words, drawn, compared."""
