"""Cases of bad input by what is bad, and what runs them; `python -m experiments.bad_inputs`."""
