"""A study: several runs that answer one question, each a process of its own, and their report."""
