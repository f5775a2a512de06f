"""Pretrained networks: what each is (`records`), where its weights are (`weights`), what runs it (`engines`)."""
