"""A subject and what is found of it: opened, analysed into a file, said in words, drawn, compared."""
