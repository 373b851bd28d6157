"""Any program in every guest: what is asked for, how it gets there, and what is done with it."""
