"""The life of a session on a real document, told in steps that check what they claim: what ``holdfast demo`` runs."""
