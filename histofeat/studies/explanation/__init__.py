"""What a model's score rests on: columns permuted, families left out, and what each family costs in time."""
