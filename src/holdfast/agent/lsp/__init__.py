"""Language servers: programs that know the names in a project's code and what is wrong in it, spoken to over their protocol."""
