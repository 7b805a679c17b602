"""Generation token by token: one step, beam search and the loop."""
