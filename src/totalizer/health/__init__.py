"""Whether all is well: facts are gathered once, and every check holds one threshold against them."""
