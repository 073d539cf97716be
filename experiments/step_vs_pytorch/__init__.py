"""One network in two libraries, each in a process of its own, and the tables that compare them."""
