"""The experiments of arXiv 2404.14875 as data: a frozen configuration, cells, and a function that measures one cell."""
