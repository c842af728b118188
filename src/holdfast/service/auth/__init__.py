"""Who asks: the token a request carries, verified, and the principal it stands for."""
