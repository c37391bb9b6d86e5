"""The public functions, by what they read: sums, the scatter, all pairs, neighbours, groups, the rows again."""
