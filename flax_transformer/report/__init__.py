"""A trained run as one page of HTML: its curves, its scores, its mistakes and how well it knows of them."""
