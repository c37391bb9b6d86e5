"""Queries, keys and attention of every head measured while a model runs: no T × T map is kept."""
