"""What every language model has in common, whichever library runs it: options, answers, conversations, templates."""
