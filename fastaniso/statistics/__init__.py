"""Pure functions of states, in float64 on the state's device: tensors in, tensors out, no synchronisation."""
