"""Search for the parameters of a head inside the training patients: the same budget for every head and family."""
