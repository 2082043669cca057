"""Reproductions, claim by claim: one folder a paper."""
