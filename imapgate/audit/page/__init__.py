"""The report as one page: what it is made of, from single elements to the whole."""
