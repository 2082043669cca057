"""Robertson & Koyejo 2023: layer-wise feedback alignment is conserved."""
