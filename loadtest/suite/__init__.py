"""What `loadtest/run` is made of: scenarios, checks, rounds, figures, and what is written about them."""
