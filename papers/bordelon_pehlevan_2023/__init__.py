"""Bordelon & Pehlevan 2023: the influence of learning rule on representation dynamics in wide neural networks."""
