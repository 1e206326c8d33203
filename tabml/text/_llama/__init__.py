"""The one door to llama.cpp: nothing else imports xllamacpp."""
