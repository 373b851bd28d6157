"""The ledger: each fault with its mapping, its code and its cause, and the proof that nothing is missing.

journal   what is written down while a program is followed (follow) or a block is measured
account   the walk over it that judges each fault (space, pages, places), and the balance
document  the result as JSON, words the result as text
"""
