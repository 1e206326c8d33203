"""The one door to torch, transformers and sentence_transformers: nothing else imports them."""
