"""Generation token by token: one step, beam search, the loop, and predictions for many texts."""
