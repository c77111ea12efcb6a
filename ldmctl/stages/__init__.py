"""The verbs: one function per subcommand. A stage never imports a stage; they meet on disk."""
