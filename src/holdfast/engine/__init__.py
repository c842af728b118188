"""The verbs and every decision: authorise, load, decide, commit, record."""
