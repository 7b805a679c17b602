"""Pages of HTML that need nothing else: the skeleton, the style and inline pictures. Standard library only."""
