"""A folder of pages made from run records: a pure function of them and of the clips at hand."""
