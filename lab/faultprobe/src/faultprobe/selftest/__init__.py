"""Does the ledger tell the truth on this machine? Micro-programs whose faults are known in advance.

micro.c   what is done to memory, one function for each case
cases     the table: what each case must cost and why
rules     cases whose count follows from more than the page size, judged from the ledger's own records
runner    traces a case, judges it, repeats it; words and schema: the result as text and as JSON
"""
